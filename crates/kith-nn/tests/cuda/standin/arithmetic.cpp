// Products of matrices and convolutions in float, on one core. A product packs its matrices into panels for a small kernel that the compiler
// keeps in registers. A convolution gathers the patches of some images at a time and multiplies them.

#include "standin.h"

#include <algorithm>
#include <cstring>

namespace standin {

typedef float Vector __attribute__((vector_size(64)));
struct alignas(64) Pair {
    Vector of[2];
};
const size_t LANES = 16, ROWS = 8, COLUMNS = 2 * LANES, DEPTH = 256, HEIGHT = 96;

// c [ROWS, COLUMNS] += a [depth, ROWS] · b [depth, COLUMNS].
static void tile(size_t depth, const float *a, const Pair *b, Pair *c) {
    Pair sums[ROWS] = {};
    for (size_t k = 0; k < depth; ++k)
        for (size_t i = 0; i < ROWS; ++i) {
            sums[i].of[0] += a[k * ROWS + i] * b[k].of[0];
            sums[i].of[1] += a[k * ROWS + i] * b[k].of[1];
        }
    for (size_t i = 0; i < ROWS; ++i) c[i] = sums[i];
}

void multiply(size_t m, size_t n, size_t k, Matrix a, Matrix b, float *c, bool add) {
    if (!add) std::fill(c, c + m * n, 0.0f);
    size_t panels = (n + COLUMNS - 1) / COLUMNS;
    std::vector<Pair> packed_b(panels * DEPTH);
    std::vector<float> packed_a(HEIGHT * DEPTH);
    for (size_t k0 = 0; k0 < k; k0 += DEPTH) {
        size_t depth = std::min(DEPTH, k - k0);
        for (size_t p = 0; p < panels; ++p) {
            float *to = (float *)&packed_b[p * DEPTH];
            size_t wide = std::min(COLUMNS, n - p * COLUMNS);
            if (wide < COLUMNS) std::fill(to, to + depth * COLUMNS, 0.0f);
            const float *from = b.at + k0 * b.row + p * COLUMNS * b.column;
            if (b.column == 1) {
                for (size_t i = 0; i < depth; ++i) memcpy(to + i * COLUMNS, from + i * b.row, wide * sizeof(float));
            } else {
                for (size_t j = 0; j < wide; ++j)
                    for (size_t i = 0; i < depth; ++i) to[i * COLUMNS + j] = from[i * b.row + j * b.column];
            }
        }
        for (size_t m0 = 0; m0 < m; m0 += HEIGHT) {
            size_t height = std::min(HEIGHT, m - m0);
            if (height % ROWS) std::fill(packed_a.begin(), packed_a.end(), 0.0f);
            for (size_t i = 0; i < height; ++i) {
                float *to = &packed_a[i / ROWS * ROWS * DEPTH + i % ROWS];
                const float *from = a.at + (m0 + i) * a.row + k0 * a.column;
                for (size_t d = 0; d < depth; ++d) to[d * ROWS] = from[d * a.column];
            }
            for (size_t p = 0; p < panels; ++p)
                for (size_t i = 0; i < height; i += ROWS) {
                    Pair sums[ROWS];
                    tile(depth, &packed_a[i * DEPTH], &packed_b[p * DEPTH], sums);
                    size_t tall = std::min(ROWS, height - i), wide = std::min(COLUMNS, n - p * COLUMNS);
                    for (size_t r = 0; r < tall; ++r) {
                        float *to = c + (m0 + i + r) * n + p * COLUMNS;
                        const float *from = (const float *)&sums[r];
                        for (size_t j = 0; j < wide; ++j) to[j] += from[j];
                    }
                }
        }
    }
}

// Calls `visit(offset in x or none, offset in patches)` for each pixel of the output and each tap. Both offsets are of `inputs` floats.
template <class Visit>
static void patches(const Convolution &s, size_t images, Visit visit) {
    size_t to = 0;
    for (size_t image = 0; image < images; ++image)
        for (size_t y = 0; y < s.out_height; ++y)
            for (size_t x = 0; x < s.out_width; ++x)
                for (size_t ty = 0; ty < s.taps_y; ++ty)
                    for (size_t tx = 0; tx < s.taps_x; ++tx, to += s.inputs) {
                        long from_y = long(y) * s.stride_y + long(ty) * s.dilation_y - s.pad_y;
                        long from_x = long(x) * s.stride_x + long(tx) * s.dilation_x - s.pad_x;
                        bool inside = from_y >= 0 && from_x >= 0 && from_y < long(s.height) && from_x < long(s.width);
                        visit(inside ? long(((image * s.height + from_y) * s.width + from_x) * s.inputs) : -1, to);
                    }
}

// Calls `some(first image, images, their output pixels, patches)` for one group of images after another.
template <class Some>
static void in_parts(const Convolution &s, Some some) {
    size_t pixels = s.out_height * s.out_width, width = s.taps_y * s.taps_x * s.inputs;
    size_t most = std::max<size_t>(1, (size_t(1) << 19) / (pixels * width));
    std::vector<float> room(std::min(most, s.images) * pixels * width);
    for (size_t first = 0; first < s.images; first += most) {
        size_t images = std::min(most, s.images - first);
        some(first, images, images * pixels, room.data());
    }
}

static void gather(const Convolution &s, const float *x, size_t images, float *room) {
    patches(s, images, [&](long from, size_t to) {
        if (from < 0) std::fill(room + to, room + to + s.inputs, 0.0f);
        else memcpy(room + to, x + from, s.inputs * sizeof(float));
    });
}

void convolve(const Convolution &s, const float *x, const float *weights, float *y) {
    size_t width = s.taps_y * s.taps_x * s.inputs, image = s.height * s.width * s.inputs, out = s.out_height * s.out_width * s.outputs;
    in_parts(s, [&](size_t first, size_t images, size_t pixels, float *room) {
        gather(s, x + first * image, images, room);
        multiply(pixels, s.outputs, width, {room, width, 1}, {weights, 1, width}, y + first * out, false);
    });
}

void gradient_of_input(const Convolution &s, const float *weights, const float *dy, float *dx) {
    size_t width = s.taps_y * s.taps_x * s.inputs, image = s.height * s.width * s.inputs, out = s.out_height * s.out_width * s.outputs;
    std::fill(dx, dx + s.images * image, 0.0f);
    in_parts(s, [&](size_t first, size_t images, size_t pixels, float *room) {
        multiply(pixels, width, s.outputs, {dy + first * out, s.outputs, 1}, {weights, width, 1}, room, false);
        float *target = dx + first * image;
        patches(s, images, [&](long to, size_t from) {
            if (to >= 0)
                for (size_t c = 0; c < s.inputs; ++c) target[to + c] += room[from + c];
        });
    });
}

void gradient_of_weights(const Convolution &s, const float *x, const float *dy, float *dweights) {
    size_t width = s.taps_y * s.taps_x * s.inputs, image = s.height * s.width * s.inputs, out = s.out_height * s.out_width * s.outputs;
    std::fill(dweights, dweights + s.outputs * width, 0.0f);
    in_parts(s, [&](size_t first, size_t images, size_t pixels, float *room) {
        gather(s, x + first * image, images, room);
        multiply(s.outputs, width, pixels, {dy + first * out, 1, s.outputs}, {room, width, 1}, dweights, true);
    });
}

}  // namespace standin
