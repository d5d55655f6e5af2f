// The kernels of src/cuda/kernels.cu on a CPU, against sums written as they are defined. A block's threads are threads here, which wait for
// each other at __syncthreads; blocks run one after the other. Compiled with HALF 0 and 1 by `tests/all/cuda/mod.rs`; the exit code is 1 and
// standard error says what differs where a kernel is wrong.

#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct Dim {
    unsigned x = 1, y = 1;
};
static thread_local Dim threadIdx;
static Dim blockIdx, blockDim, gridDim;
static std::barrier<> *all_threads = nullptr;
static void __syncthreads() { all_threads->arrive_and_wait(); }

static float __uint_as_float(unsigned bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static unsigned __float_as_uint(float f) {
    unsigned bits;
    memcpy(&bits, &f, 4);
    return bits;
}

#include "kernels.cu"

using std::vector;
using Kernel = std::function<void()>;

static void launch(Dim grid, Dim block, Kernel kernel) {
    gridDim = grid, blockDim = block;
    for (unsigned by = 0; by < grid.y; ++by)
        for (unsigned bx = 0; bx < grid.x; ++bx) {
            blockIdx = {bx, by};
            std::barrier<> barrier(block.x * block.y);
            all_threads = &barrier;
            vector<std::thread> threads;
            for (unsigned y = 0; y < block.y; ++y)
                for (unsigned x = 0; x < block.x; ++x)
                    threads.emplace_back([=, &barrier] {
                        threadIdx = {x, y};
                        kernel();
                        barrier.arrive_and_drop();
                    });
            for (auto &thread : threads) thread.join();
        }
}

// For kernels whose threads do not wait for each other.
static void each(size count, Kernel kernel) {
    gridDim = {unsigned((count + 255) / 256), 1}, blockDim = {256, 1};
    for (blockIdx = {0, 0}; blockIdx.x < gridDim.x; ++blockIdx.x)
        for (threadIdx = {0, 0}; threadIdx.x < 256; ++threadIdx.x) kernel();
}

// Blocks of 64 threads that do not wait for each other.
static void blocks(unsigned count, Kernel kernel) {
    gridDim = {count, 1}, blockDim = {64, 1};
    for (blockIdx = {0, 0}; blockIdx.x < count; ++blockIdx.x)
        for (threadIdx = {0, 0}; threadIdx.x < 64; ++threadIdx.x) kernel();
}

// bf16 keeps 8 bits; float differs by the order of sums.
static const double ROUNDING = HALF ? 1.0 / 256 : 1e-5, SUMS = 1e-5;

static void same(const char *what, double found, double wanted, double tolerance) {
    // Written so that what is no number is no match.
    if (std::fabs(found - wanted) <= tolerance * (1 + std::fabs(wanted))) return;
    fprintf(stderr, "HALF %d, %s: %g in place of %g\n", HALF, what, found, wanted);
    exit(1);
}

static std::mt19937 generator(1);
static float random_float() { return std::uniform_real_distribution<float>(-1, 1)(generator); }

// Floats that the type of activations holds exactly.
static vector<float> floats(size_t count) {
    vector<float> all(count);
    for (auto &one : all) one = widen(narrow(random_float()));
    return all;
}

static vector<value> activations(const vector<float> &wide) {
    vector<value> all;
    for (float one : wide) all.push_back(narrow(one));
    return all;
}

template <class T> static Eight *eights(vector<T> &all) { return (Eight *)all.data(); }

static void rounding() {
#if HALF
    for (int i = 0; i < 100000; ++i) {
        float f = std::ldexp(random_float(), int(generator() % 40) - 20);
        if (std::fabs(widen(narrow(f)) - f) > std::fabs(f) / 256) same("rounding", widen(narrow(f)), f, 0);
    }
    same("tie to the even below", narrow(1.0f + 1.0f / 256), 0x3f80, 0);
    same("tie to the even above", narrow(1.0f + 3.0f / 256), 0x3f82, 0);
    same("not a number", std::isnan(widen(narrow(__uint_as_float(0x7f800001)))), 1, 0);
    same("infinite", std::isinf(widen(narrow(INFINITY))), 1, 0);
#endif
}

static void layouts() {
    for (auto [taps, in, room, out] : {std::tuple{49, 3, 8, 40}, {9, 16, 16, 24}, {1, 8, 8, 72}}) {
        auto weights = floats(taps * in * out);
        vector<value> packed(taps * room * out, narrow(9));
        Dim grid{unsigned(out + 31) / 32, unsigned(taps * room + 31) / 32};
        launch(grid, {32, 8}, [&, taps = taps, in = in, room = room, out = out] { pack_weights(weights.data(), packed.data(), taps, in, room, out); });
        for (int o = 0; o < out; ++o)
            for (int t = 0; t < taps; ++t)
                for (int c = 0; c < room; ++c)
                    same("pack_weights", widen(packed[(o * taps + t) * room + c]), c < in ? weights[(t * in + c) * out + o] : 0, 0);
        vector<float> back(weights.size(), 9);
        launch(grid, {32, 8}, [&, taps = taps, in = in, room = room, out = out] { unpack_weights(packed.data(), back.data(), taps, in, room, out); });
        for (size_t i = 0; i < back.size(); ++i) same("unpack_weights", back[i], weights[i], 0);
    }
}

// A convolution of folded pixels with folded weights is the stem's; so is the gradient of its weights, unfolded.
static void folding(int side, int rows) {
    int batch = 2, half = (side + 1) / 2, columns = half + 3, height = rows == 8 ? half : columns, outputs = 5;
    auto wide = floats(batch * side * side * 3), weights = floats(49 * 3 * outputs);
    auto pixels = activations(wide);
    vector<Eight> folded(batch * height * columns * rows);
    memset(folded.data(), 0xff, folded.size() * sizeof(Eight));
    Dim grid{unsigned(batch * height), unsigned(columns + 63) / 64};
    launch(grid, {32, unsigned(rows)}, [&] { fold_pixels(pixels.data(), folded.data(), side, half, height); });
    vector<value> taps(256 * outputs, narrow(9));
    each(taps.size(), [&] { fold_weights(weights.data(), taps.data(), outputs, rows, taps.size()); });
    auto in = (const value *)folded.data();
    auto slope = floats(batch * half * half * outputs);
    vector<double> wanted(weights.size()), sums(taps.size());
    for (int i = 0; i < int(slope.size()); ++i) {
        int o = i % outputs, x = i / outputs % half, y = i / outputs / half % half, image = i / outputs / half / half;
        double direct = 0, found = 0;
        for (int t = 0; t < 147; ++t) {
            int from_y = 2 * y - 3 + t / 21, from_x = 2 * x - 3 + t / 3 % 7;
            if (from_y < 0 || from_x < 0 || from_y >= side || from_x >= side) continue;
            double pixel = wide[((image * side + from_y) * side + from_x) * 3 + t % 3];
            direct += pixel * widen(narrow(weights[t * outputs + o]));
            wanted[t * outputs + o] += pixel * slope[i];
        }
        for (int t = 0; t < 256; ++t) {
            int tap_y = t / (32 * rows), along = t % (32 * rows);
            double pixel = widen(in[((image * height + y + tap_y) * columns + x) * 8 * rows + along]);
            found += pixel * widen(taps[o * 256 + t]);
            sums[o * 256 + t] += pixel * slope[i];
        }
        same("a convolution of folded pixels", found, direct, SUMS);
    }
    vector<value> gradient;
    for (double sum : sums) gradient.push_back(narrow(sum));
    vector<float> back(weights.size(), 9);
    each(taps.size(), [&] { unfold_weights(gradient.data(), back.data(), outputs, rows, taps.size()); });
    for (size_t i = 0; i < back.size(); ++i) same("unfold_weights", back[i], wanted[i], ROUNDING);
}

static void pointwise() {
    int channels = 24, count = 24 * 50;
    auto sums = floats(count), bias = floats(channels), residual = floats(count);
    for (int relu : {0, 1})
        for (bool added : {false, true}) {
            auto out = activations(sums), b = activations(bias), r = activations(residual);
            each(count / 8, [&] { epilogue(eights(out), eights(b), added ? eights(r) : nullptr, channels / 8, relu, count / 8); });
            for (int i = 0; i < count; ++i) {
                double wanted = sums[i] + bias[i % channels] + (added ? residual[i] : 0);
                same("epilogue", widen(out[i]), relu ? std::fmax(wanted, 0) : wanted, ROUNDING);
            }
        }
    for (bool added : {false, true}) {
        auto odd = activations(sums), odd_bias = activations(bias), r = activations(residual);
        each(count, [&] { add_bias(odd.data(), odd_bias.data(), added ? r.data() : nullptr, 15, count); });
        for (int i = 0; i < count; ++i) same("add_bias", widen(odd[i]), sums[i] + bias[i % 15] + (added ? residual[i] : 0), ROUNDING);
    }
    auto gradient = activations(sums), output = activations(residual);
    each(count / 8, [&] { mask(eights(gradient), eights(output), count / 8); });
    for (int i = 0; i < count; ++i) same("mask", widen(gradient[i]), residual[i] > 0 ? sums[i] : 0, 0);
    auto narrowed = vector<value>(count);
    auto widened = vector<float>(count);
    each(count, [&] { narrow_all(sums.data(), narrowed.data(), count); });
    each(count, [&] { widen_all(narrowed.data(), widened.data(), count); });
    each(count, [&] { add(widened.data(), residual.data(), count); });
    for (int i = 0; i < count; ++i) same("narrow, widen, add", widened[i], sums[i] + residual[i], SUMS);
    auto between = sums;
    each(count, [&] { blend(between.data(), residual.data(), 0.25f, count); });
    for (int i = 0; i < count; ++i) same("blend", between[i], 0.75f * sums[i] + 0.25f * residual[i], SUMS);
}

static void pool(int side) {
    int batch = 3, channels = 16, pooled = (side - 1) / 2 + 1;
    vector<float> wide(batch * side * side * channels);
    // From three numbers: many ties.
    for (auto &one : wide) one = std::floor(std::fabs(random_float()) * 3);
    auto in = activations(wide);
    vector<value> out(batch * pooled * pooled * channels), slopes(in.size(), narrow(9));
    vector<Indices> indices(out.size() / 8);
    auto argmax = (unsigned char *)indices.data();
    blocks(batch * pooled, [&] { max_pool(eights(in), eights(out), nullptr, side, pooled, channels / 8); });
    auto unsaved = out;
    blocks(batch * pooled, [&] { max_pool(eights(in), eights(out), indices.data(), side, pooled, channels / 8); });
    same("max_pool without its argmax", out == unsaved, 1, 0);
    auto gradient = floats(out.size());
    auto g = activations(gradient);
    vector<double> wanted(wide.size());
    for (size_t i = 0; i < out.size(); ++i) {
        int c = i % channels, px = i / channels % pooled, py = i / channels / pooled % pooled, image = i / channels / pooled / pooled;
        double best = -1;
        int pick = -1, from = 0;
        for (int d = 0; d < 9; ++d) {
            int y = 2 * py + d / 3 - 1, x = 2 * px + d % 3 - 1;
            if (y < 0 || x < 0 || y >= side || x >= side) continue;
            int at = ((image * side + y) * side + x) * channels + c;
            if (wide[at] > best) best = wide[at], pick = d, from = at;
        }
        same("max_pool", widen(out[i]), best, 0);
        same("its argmax", argmax[i], pick, 0);
        wanted[from] += gradient[i];
    }
    blocks(batch * side, [&] { max_pool_gradient(eights(g), indices.data(), eights(slopes), side, pooled, channels / 8); });
    for (size_t i = 0; i < in.size(); ++i) same("max_pool_gradient", widen(slopes[i]), wanted[i], ROUNDING);
    // Not the first that its window meets, if there are two.
    in[side > 1 ? channels : 0] = narrow(NAN);
    blocks(batch * pooled, [&] { max_pool(eights(in), eights(out), nullptr, side, pooled, channels / 8); });
    same("max_pool of what is no number", std::isnan(widen(out[0])), 1, 0);
}

static void even(int side) {
    int batch = 2, channels = 16, half = (side + 1) / 2;
    auto in = activations(floats(batch * side * side * channels));
    vector<value> out(batch * half * half * channels, narrow(9));
    blocks(batch * half, [&] { take_even(eights(in), eights(out), side, half, channels / 8); });
    for (int i = 0; i < int(out.size()); ++i) {
        int c = i % channels, x = i / channels % half, y = i / channels / half % half, image = i / channels / half / half;
        same("take_even", widen(out[i]), widen(in[((image * side + 2 * y) * side + 2 * x) * channels + c]), 0);
    }
}

static void means() {
    int batch = 3, pixels = 9, channels = 16;
    auto wide = floats(batch * pixels * channels);
    auto in = activations(wide);
    vector<value> out(batch * channels), back(in.size());
    each(out.size(), [&] { mean(in.data(), out.data(), pixels, channels, out.size()); });
    each(back.size(), [&] { mean_gradient(out.data(), back.data(), pixels, channels, back.size()); });
    for (int i = 0; i < batch * channels; ++i) {
        double sum = 0;
        for (int p = 0; p < pixels; ++p) sum += wide[(i / channels * pixels + p) * channels + i % channels];
        same("mean", widen(out[i]), sum / pixels, ROUNDING);
        for (int p = 0; p < pixels; ++p)
            same("mean_gradient", widen(back[(i / channels * pixels + p) * channels + i % channels]), widen(out[i]) / pixels, ROUNDING);
    }
}

static void lengths(int dim) {
    unsigned batch = 2;
    auto wide = floats(batch * dim), gradient = floats(batch * dim);
    auto rows = activations(wide);
    vector<float> unit(wide.size()), length(batch);
    vector<value> back(wide.size());
    launch({batch, 1}, {256, 1}, [&] { normalize(rows.data(), unit.data(), length.data(), dim, 1e-12f); });
    launch({batch, 1}, {256, 1}, [&] { normalize_gradient(gradient.data(), unit.data(), length.data(), back.data(), dim); });
    for (unsigned b = 0; b < batch; ++b) {
        double square = 0, along = 0;
        for (int i = b * dim; i < int(b + 1) * dim; ++i) square += wide[i] * wide[i];
        double root = std::sqrt(square);
        same("a length", length[b], root, SUMS);
        for (int i = b * dim; i < int(b + 1) * dim; ++i) along += gradient[i] * wide[i] / root;
        for (int i = b * dim; i < int(b + 1) * dim; ++i) {
            same("normalize", unit[i], wide[i] / root, SUMS);
            same("normalize_gradient", widen(back[i]), (gradient[i] - wide[i] / root * along) / root, ROUNDING);
        }
    }
}

static void sums(int rows) {
    int columns = 40, chunk = 256;
    unsigned parts = (rows + chunk - 1) / chunk;
    auto wide = floats(rows * columns);
    auto matrix = activations(wide);
    vector<float> part(parts * columns), out(columns);
    launch({2, parts}, {32, 8}, [&] { sum_rows(matrix.data(), part.data(), columns, rows, chunk); });
    launch({2, 1}, {32, 8}, [&] { sum_parts(part.data(), out.data(), columns, parts); });
    for (int c = 0; c < columns; ++c) {
        double sum = 0;
        for (int r = 0; r < rows; ++r) sum += wide[r * columns + c];
        same("sum_rows", out[c], sum, SUMS);
    }
}

static void norm() {
    vector<float> arrays[] = {floats(1000), floats(7), floats(40000)};
    vector<size> table;
    double square = 0;
    for (auto &array : arrays) {
        table.insert(table.end(), {(size)array.data(), array.size()});
        for (float one : array) square += double(one) * one;
    }
    vector<float> parts(4 * 3);
    float root = 0;
    launch({4, 3}, {256, 1}, [&] { sum_squares(table.data(), parts.data()); });
    launch({1, 1}, {256, 1}, [&] { root_of_sum(parts.data(), &root, 4 * 3); });
    same("the norm", root, std::sqrt(square), SUMS);
}

// Some columns are longer than their limit and some not; one has neither a gradient nor weights.
static void filters(int rows) {
    int columns = 40, chunk = 256;
    unsigned parts = (rows + chunk - 1) / chunk;
    auto gradient = floats(rows * columns), weight = floats(rows * columns);
    for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < columns; ++c) gradient[r * columns + c] *= 0.02f * c;
        weight[r * columns] = weight[r * columns + 7] = 0;
    }
    auto before = gradient;
    vector<float> squares(2 * parts * columns);
    launch({2, parts}, {32, 8}, [&] { filter_squares(gradient.data(), weight.data(), squares.data(), columns, rows, chunk); });
    launch({2, parts}, {32, 8}, [&] { clip_filters(gradient.data(), squares.data(), columns, rows, chunk, 0.4f, 1e-3f); });
    for (int c = 0; c < columns; ++c) {
        double g = 0, w = 0;
        for (int r = 0; r < rows; ++r) g += std::pow(before[r * columns + c], 2), w += std::pow(weight[r * columns + c], 2);
        double limit = 0.4 * std::fmax(std::sqrt(w), 1e-3), factor = std::sqrt(g) > limit ? limit / std::sqrt(g) : 1;
        for (int r = 0; r < rows; ++r) same("a clipped filter", gradient[r * columns + c], factor * before[r * columns + c], SUMS);
    }
}

// 0: SGD, 1: Adam, 2: AdamW.
static void updates(int kind) {
    const int count = 1000;
    auto weight = floats(count), first = floats(count), second = floats(count), gradient = floats(count);
    for (auto &one : second) one = std::fabs(one);
    auto w = weight, m = first, v = second;
    vector<size> table = {(size)weight.data(), (size)first.data(), (size)second.data(), (size)gradient.data(), count, __float_as_uint(0.1f)};
    Rule rule{kind > 0, kind == 2, 0.5f, 0.01f, 0.8f, 0.9f, 1e-6f, 0.02f, 0.3f};
    launch({2, 1}, {256, 1}, [&] { update(table.data(), rule); });
    for (int i = 0; i < count; ++i) {
        double g = 0.5 * gradient[i] + (kind == 2 ? 0 : 0.1 * w[i]);
        double moved = kind == 0 ? 0.8 * m[i] + g : 0.8 * m[i] + 0.2 * g, spread = kind == 0 ? v[i] : 0.9 * v[i] + 0.1 * g * g;
        double step = kind == 0 ? 0.01 * moved : 0.02 * moved / (std::sqrt(spread) / 0.3 + 1e-6);
        same("first moment", first[i], moved, SUMS);
        same("second moment", second[i], spread, SUMS);
        same("weight", weight[i], (kind == 2 ? 1 - 0.01 * 0.1 : 1) * w[i] - step, 10 * SUMS);
    }
}

int main() {
    rounding();
    layouts();
    for (int side : {1, 2, 7, 10, 131})
        for (int rows : {8, 2}) folding(side, rows);
    pointwise();
    for (int side : {1, 2, 5, 6, 16}) pool(side);
    for (int side : {1, 2, 5, 34}) even(side);
    means();
    for (int dim : {7, 128, 300}) lengths(dim);
    for (int rows : {1, 255, 700}) sums(rows);
    norm();
    for (int rows : {1, 255, 700}) filters(rows);
    for (int kind : {0, 1, 2}) updates(kind);
}
