// The values of cuDNN and cuBLAS: float or bf16 in memory, and float in all sums. A result is rounded to its type once, at the end.
#pragma once

#include "standin.h"

#include <cstring>

namespace standin __attribute__((visibility("hidden"))) {

using std::vector;

enum Type { Float32, Bfloat16 };

inline size_t width(Type type) { return type == Float32 ? 4 : 2; }

// The values as floats. `room` holds them if they have to be widened.
inline const float *widened(Type type, const void *from, size_t count, vector<float> &room) {
    if (type == Float32) return (const float *)from;
    room.resize(count);
    const uint16_t *halves = (const uint16_t *)from;
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits = uint32_t(halves[i]) << 16;
        memcpy(&room[i], &bits, 4);
    }
    return room.data();
}

inline uint16_t narrowed(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline void store(Type type, void *to, size_t i, float value) {
    if (type == Float32) ((float *)to)[i] = value;
    else ((uint16_t *)to)[i] = narrowed(value);
}

// to = alpha · sums + beta · to. If beta is 0, the values in `to` are not read.
inline void finish(Type type, void *to, const vector<float> &sums, float alpha, float beta) {
    vector<float> room;
    const float *before = beta != 0 ? widened(type, to, sums.size(), room) : nullptr;
    for (size_t i = 0; i < sums.size(); ++i) store(type, to, i, alpha * sums[i] + (before ? beta * before[i] : 0.0f));
}

// Stops the program if a result overlaps an argument.
inline void apart(const char *call, const Reach &result, const vector<Reach> &others) {
    for (const Reach &other : others)
        if (meet(result, other))
            die("%s: the result at 0x%llx, %zu bytes, lies on an argument at 0x%llx, %zu bytes", call, result.at, result.bytes, other.at,
                other.bytes);
}

}  // namespace standin
