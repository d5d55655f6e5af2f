// The part of CUDA's device language that kernels.cu uses, on a CPU. A grid runs block by block. There are no warps: kernels that shuffle or vote
// do not compile.
//
// A block's first thread starts on a stack of its own. If it ends without waiting at a barrier, the other threads are plain calls. If it waits,
// each of them gets a stack, and they take turns at the barriers (blocks.cpp).
#pragma once

#include "standin.h"

#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __shared__ static

namespace standin __attribute__((visibility("hidden"))) {

extern Dim threadIdx, blockIdx, blockDim, gridDim;

void __syncthreads();

inline float __uint_as_float(unsigned bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
inline unsigned __float_as_uint(float f) {
    unsigned bits;
    memcpy(&bits, &f, 4);
    return bits;
}

// Runs `thread(argument)` for the first thread of the block in blockIdx. If it waits at a barrier, runs the other threads too and returns true.
bool block_of_waiting(void (*thread)(const void *), const void *argument);
void plain_threads(bool are);

template <class Thread>
void run_grid(Dim grid, Dim block, const Thread &thread) {
    gridDim = grid, blockDim = block;
    auto call = [](const void *argument) { (*(const Thread *)argument)(); };
    for (unsigned bz = 0; bz < grid.z; ++bz)
        for (unsigned by = 0; by < grid.y; ++by)
            for (unsigned bx = 0; bx < grid.x; ++bx) {
                blockIdx = {bx, by, bz};
                if (block_of_waiting(call, &thread)) continue;
                plain_threads(true);
                for (unsigned z = 0; z < block.z; ++z)
                    for (unsigned y = 0; y < block.y; ++y)
                        for (unsigned x = z + y == 0; x < block.x; ++x) {
                            threadIdx = {x, y, z};
                            thread();
                        }
                plain_threads(false);
            }
}

// Adds the memory that a pointer argument names. A null pointer names none.
template <class T>
void add_reach(const char *kernel, std::vector<Reach> &reaches, T argument) {
    if constexpr (std::is_pointer_v<T>) {
        using Value = std::remove_pointer_t<T>;
        if ((size_t)argument % alignof(Value))
            die("kernel %s: an argument %p is not a multiple of %zu", kernel, (const void *)argument, alignof(Value));
        if (argument) reaches.push_back({(CUdeviceptr)argument, sizeof(Value), !std::is_const_v<Value>});
    }
}

// The parameters of a kernel, from its type.
template <auto kernel, class Type = decltype(kernel)>
struct Launch;

template <auto kernel, class... Parameters>
struct Launch<kernel, void (*)(Parameters...)> {
    static Work prepare(const char *name, void **arguments, Dim grid, Dim block) {
        return copy(name, arguments, grid, block, std::index_sequence_for<Parameters...>());
    }
    template <size_t... I>
    static Work copy(const char *name, void **arguments, Dim grid, Dim block, std::index_sequence<I...>) {
        std::tuple<Parameters...> copies(*(Parameters *)arguments[I]...);
        Work work{std::string("kernel ") + name, {}, [=] {
                      std::tuple<Parameters...> own = copies;
                      run_grid(grid, block, [&] { kernel(std::get<I>(own)...); });
                  }};
        (add_reach(name, work.reaches, std::get<I>(copies)), ...);
        return work;
    }
};

}  // namespace standin
