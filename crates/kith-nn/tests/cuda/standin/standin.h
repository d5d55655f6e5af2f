// What all parts of the stand-in share: work for streams, kernels, products and convolutions. The driver's state is in driver.h, the values of
// cuDNN and cuBLAS in values.h, the device's language in blocks.h.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace standin __attribute__((visibility("hidden"))) {

// Device memory that work reads or writes. `bytes` is as much of its length as is known.
struct Reach {
    CUdeviceptr at;
    size_t bytes;
    bool writes;
};

inline bool meet(const Reach &a, const Reach &b) { return a.at < b.at + b.bytes && b.at < a.at + a.bytes; }
inline Reach reads(const void *at, size_t bytes) { return {(CUdeviceptr)at, bytes, false}; }
inline Reach writes(const void *at, size_t bytes) { return {(CUdeviceptr)at, bytes, true}; }

// A piece of work in a stream.
struct Work {
    std::string name;
    std::vector<Reach> reaches;
    std::function<void()> run;
    uint64_t number = 0;  // in the order in which work was queued, on any stream
};

// For cuDNN and cuBLAS; each takes the driver's lock. The first queues `work`, or records it if the stream captures. The second returns the error
// of a call that is forbidden while a stream captures (one that allocates, for example), or success. The third counts a call for STANDIN_COUNT.
CUresult enqueue(CUstream stream, Work work);
CUresult forbidden_in_capture(const char *call);
void count(const char *call);

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};

struct Kernel {
    const char *name;
    // Copies the arguments. The work that it returns runs the whole grid.
    Work (*prepare)(void **arguments, Dim grid, Dim block);
};

// The kernels of kernels.cu compiled with HALF 0 and 1, and its text.
extern const std::vector<Kernel> kernels_float, kernels_half;
extern const std::string kernels_source;

// A matrix by its strides.
struct Matrix {
    const float *at;
    size_t row, column;
};

// c = a · b or c += a · b, where c is [m, n] row by row.
void multiply(size_t m, size_t n, size_t k, Matrix a, Matrix b, float *c, bool add);

// x [images, height, width, inputs], weights [outputs, taps_y, taps_x, inputs], y [images, out_height, out_width, outputs].
struct Convolution {
    size_t images, height, width, inputs, outputs, taps_y, taps_x, out_height, out_width;
    int pad_y, pad_x, stride_y, stride_x, dilation_y, dilation_x;
};

void convolve(const Convolution &shape, const float *x, const float *weights, float *y);
void gradient_of_input(const Convolution &shape, const float *weights, const float *dy, float *dx);
void gradient_of_weights(const Convolution &shape, const float *x, const float *dy, float *dweights);

}  // namespace standin
