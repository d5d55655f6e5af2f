// The network's operations on a GPU besides products and convolutions. Compiled when a GPU is opened, for the type of activations: `HALF` is 1
// for bf16, 0 for float. Activations are [batch, side, side, channels]. Arithmetic and sums are in float. Every sum is taken in an order that
// depends on shapes alone.

typedef unsigned long long size;

#if HALF
typedef unsigned short value;  // the upper half of a float
#else
typedef float value;
#endif

// Most kernels take eight neighbouring channels a thread: 16 bytes of bf16.
struct alignas(16) Eight {
    value at[8];
};

__device__ inline float widen(value v) {
#if HALF
    return __uint_as_float((unsigned int)v << 16);
#else
    return v;
#endif
}

__device__ inline value narrow(float f) {
#if HALF
    unsigned int bits = __float_as_uint(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (value)(bits >> 16 | 0x40);  // stays not a number
    return (value)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);                 // to the nearest, ties to even
#else
    return f;
#endif
}

__device__ inline size place() {
    return (size)blockIdx.x * blockDim.x + threadIdx.x;
}

struct alignas(2 * sizeof(value)) Pair {
    value at[2];
};

// The stem's input. 7 x 7 / 2 on three channels is computed as 1 x 4 / 1 on 64 (`rows` is 8), which fill cuDNN's fast kernels. Pixel (y, x) of `out`
// [batch, height, half + 3, 8 * rows] holds the rows 2y - 4 to 2y - 5 + rows of the pixels' columns 2x - 4 and 2x - 3, eight values a row, the last
// two of them 0. Outside the image there are zeros, so that the convolution needs no padding. `height` is half, the side of the convolution's output.
// Blocks of 32 x `rows` threads, each for 64 pixels of a row of `out`.
extern "C" __global__ void fold_pixels(const value *in, Eight *out, int side, int half, int height) {
    __shared__ Pair pairs[8][196];  // 3 pairs a pixel; with 4 more, no two threads of a warp read the same bank
    int columns = half + 3, first = blockIdx.y * 64, pixels = columns - first < 64 ? columns - first : 64, rows = blockDim.y;
    int y = 2 * (int)(blockIdx.x % height) - 4 + threadIdx.y, start = 6 * first - 12;
    const value *row = in + ((size)(blockIdx.x / height) * side + y) * side * 3;
    for (int i = threadIdx.x; i < 6 * pixels; i += 32) {
        bool there = y >= 0 && y < side && start + i >= 0 && start + i < 3 * side;
        pairs[threadIdx.y][i / 2].at[i % 2] = there ? row[start + i] : narrow(0.0f);
    }
    __syncthreads();
    Eight *to = out + ((size)blockIdx.x * columns + first) * rows;
    for (int i = threadIdx.y * 32 + threadIdx.x; i < rows * pixels; i += 32 * rows) {
        Eight eight = {};
        for (int pair = 0; pair < 3; ++pair) {
            Pair two = pairs[i % rows][3 * (i / rows) + pair];
            eight.at[2 * pair] = two.at[0];
            eight.at[2 * pair + 1] = two.at[1];
        }
        to[i] = eight;
    }
}

// The place in [7, 7, 3] of value `i` of the stem's folded weights, [4, 64] or [4, 4, 16]; -1 if there is none.
__device__ inline int unfolded(int i, int rows) {
    int c = i % 8, y = i / (32 * rows) * 2 + i / 8 % rows - 1, x = i / (8 * rows) % 4 * 2 + c / 3 - 1;
    return c < 6 && y >= 0 && x >= 0 && x < 7 ? (7 * y + x) * 3 + c % 3 : -1;
}

// The stem's weights [7, 7, 3, outputs] to [outputs, 4, 64] or [outputs, 4, 4, 16], as fold_pixels lays out its input.
extern "C" __global__ void fold_weights(const float *in, value *out, int outputs, int rows, size count) {
    size i = place();
    if (i >= count) return;
    int from = unfolded(i % 256, rows);
    out[i] = narrow(from < 0 ? 0.0f : in[(size)from * outputs + i / 256]);
}

// The reverse, for gradients: each place of [7, 7, 3, outputs] has one in the folded weights.
extern "C" __global__ void unfold_weights(const value *in, float *out, int outputs, int rows, size count) {
    size i = place();
    if (i >= count) return;
    int to = unfolded(i % 256, rows);
    if (to >= 0) out[(size)to * outputs + i / 256] = widen(in[i]);
}

// Weights [taps, inputs, outputs] to cuDNN's [outputs, taps, padded], channels from `inputs` on 0. Blocks of 32 x 8 threads turn tiles of
// 32 x 32 over in shared memory; a row is a (tap, channel).
extern "C" __global__ void pack_weights(const float *in, value *out, int taps, int inputs, int padded, int outputs) {
    __shared__ float tile[32][33];
    int rows = taps * padded, row = blockIdx.y * 32 + threadIdx.y, column = blockIdx.x * 32 + threadIdx.x;
    for (int r = 0; r < 32; r += 8) {
        int at = row + r, tap = at / padded, channel = at % padded;
        bool there = at < rows && column < outputs && channel < inputs;
        tile[threadIdx.y + r][threadIdx.x] = there ? in[((size)tap * inputs + channel) * outputs + column] : 0.0f;
    }
    __syncthreads();
    int output = blockIdx.x * 32 + threadIdx.y, to = blockIdx.y * 32 + threadIdx.x;
    for (int r = 0; r < 32; r += 8)
        if (output + r < outputs && to < rows) out[(size)(output + r) * rows + to] = narrow(tile[threadIdx.x][threadIdx.y + r]);
}

// The reverse, for gradients: [outputs, taps, padded] to [taps, inputs, outputs] floats.
extern "C" __global__ void unpack_weights(const value *in, float *out, int taps, int inputs, int padded, int outputs) {
    __shared__ float tile[32][33];
    int rows = taps * padded, row = blockIdx.y * 32 + threadIdx.x, output = blockIdx.x * 32 + threadIdx.y;
    for (int r = 0; r < 32; r += 8) {
        bool there = row < rows && output + r < outputs;
        tile[threadIdx.y + r][threadIdx.x] = there ? widen(in[(size)(output + r) * rows + row]) : 0.0f;
    }
    __syncthreads();
    int from = blockIdx.y * 32 + threadIdx.y, column = blockIdx.x * 32 + threadIdx.x;
    for (int r = 0; r < 32; r += 8) {
        int at = from + r, tap = at / padded, channel = at % padded;
        if (at < rows && column < outputs && channel < inputs)
            out[((size)tap * inputs + channel) * outputs + column] = tile[threadIdx.x][threadIdx.y + r];
    }
}

extern "C" __global__ void narrow_all(const float *in, value *out, size count) {
    size i = place();
    if (i < count) out[i] = narrow(in[i]);
}

extern "C" __global__ void widen_all(const value *in, float *out, size count) {
    size i = place();
    if (i < count) out[i] = widen(in[i]);
}

// sums + bias (+ residual), then ReLU if asked; in place. `residual` may be null. `eights` is the number of eights in a pixel.
extern "C" __global__ void epilogue(Eight *sums, const Eight *bias, const Eight *residual, int eights, int relu, size count) {
    size i = place();
    if (i >= count) return;
    Eight out = sums[i], b = bias[i % eights], r = {};
    if (residual) r = residual[i];
    for (int c = 0; c < 8; ++c) {
        float f = widen(out.at[c]) + widen(b.at[c]);
        if (residual) f += widen(r.at[c]);
        out.at[c] = narrow(relu && f <= 0.0f ? 0.0f : f);
    }
    sums[i] = out;
}

// sums + bias (+ residual) for any number of channels, in place. `residual` may be null.
extern "C" __global__ void add_bias(value *sums, const value *bias, const value *residual, int channels, size count) {
    size i = place();
    if (i >= count) return;
    float f = widen(sums[i]) + widen(bias[i % channels]);
    sums[i] = narrow(residual ? f + widen(residual[i]) : f);
}

// The pixels of even rows and columns: [images, side, side] to [images, half, half]. A block for each row of `out`.
extern "C" __global__ void take_even(const Eight *in, Eight *out, int side, int half, int eights) {
    int y = blockIdx.x % half, row = half * eights;
    const Eight *from = in + ((size)(blockIdx.x / half) * side + 2 * y) * side * eights;
    for (int i = threadIdx.x; i < row; i += blockDim.x)
        out[(size)blockIdx.x * row + i] = from[(size)(i / eights * 2) * eights + i % eights];
}

// ReLU's gradient, in place.
extern "C" __global__ void mask(Eight *gradient, const Eight *output, size eights) {
    size i = place();
    if (i >= eights) return;
    Eight g = gradient[i], y = output[i];
    for (int c = 0; c < 8; ++c)
        if (!(widen(y.at[c]) > 0.0f)) g.at[c] = narrow(0.0f);
    gradient[i] = g;
}

// Indices of eight maxima.
struct alignas(8) Indices {
    unsigned char at[8];
};

// Max-pool 3x3/2 with a pad of 1: the maximum of each window and, unless `argmax` is null, its index in it (0 to 8, the first of equal ones).
// `eights` is the number of eights in a pixel. A block for each row of `out`.
extern "C" __global__ void max_pool(const Eight *in, Eight *out, Indices *argmax, int side, int pooled, int eights) {
    int py = blockIdx.x % pooled, row = pooled * eights;
    const Eight *image = in + (size)(blockIdx.x / pooled) * side * side * eights;
    for (int i = threadIdx.x; i < row; i += blockDim.x) {
        int e = i % eights, px = i / eights;
        float best[8];
        Indices index;
        bool first = true;
        for (int dy = 0; dy < 3; ++dy)
            for (int dx = 0; dx < 3; ++dx) {
                int y = 2 * py + dy - 1, x = 2 * px + dx - 1;
                if (y < 0 || y >= side || x < 0 || x >= side) continue;
                Eight here = image[((size)y * side + x) * eights + e];
                for (int c = 0; c < 8; ++c) {
                    float f = widen(here.at[c]);
                    // NaN wins and stays, so that no pool hides it.
                    if (first || f > best[c] || f != f) {
                        best[c] = f;
                        index.at[c] = 3 * dy + dx;
                    }
                }
                first = false;
            }
        Eight eight;
        for (int c = 0; c < 8; ++c) eight.at[c] = narrow(best[c]);
        out[(size)blockIdx.x * row + i] = eight;
        if (argmax) argmax[(size)blockIdx.x * row + i] = index;
    }
}

// The gradient of max_pool with respect to its input, gathered: each pixel sums over the windows that cover it, at most four. A block for each row
// of `out`.
extern "C" __global__ void max_pool_gradient(const Eight *gradient, const Indices *argmax, Eight *out, int side, int pooled, int eights) {
    int y = blockIdx.x % side, row = side * eights;
    size image = (size)(blockIdx.x / side) * pooled * pooled * eights;
    for (int i = threadIdx.x; i < row; i += blockDim.x) {
        int e = i % eights, x = i / eights;
        float sum[8] = {};
        for (int py = y / 2; py <= (y + 1) / 2 && py < pooled; ++py)
            for (int px = x / 2; px <= (x + 1) / 2 && px < pooled; ++px) {
                unsigned char here = 3 * (y - 2 * py + 1) + (x - 2 * px + 1);
                size window = image + (size)(py * pooled + px) * eights + e;
                Eight g = gradient[window];
                Indices index = argmax[window];
                for (int c = 0; c < 8; ++c)
                    if (index.at[c] == here) sum[c] += widen(g.at[c]);
            }
        Eight eight;
        for (int c = 0; c < 8; ++c) eight.at[c] = narrow(sum[c]);
        out[(size)blockIdx.x * row + i] = eight;
    }
}

// The mean over pixels: a thread for each (image, channel).
extern "C" __global__ void mean(const value *in, value *out, int pixels, int channels, size count) {
    size i = place();
    if (i >= count) return;
    const value *from = in + i / channels * pixels * channels + i % channels;
    float sum = 0.0f;
    for (int p = 0; p < pixels; ++p) sum += widen(from[(size)p * channels]);
    out[i] = narrow(sum / pixels);
}

extern "C" __global__ void mean_gradient(const value *gradient, value *out, int pixels, int channels, size count) {
    size i = place();
    if (i >= count) return;
    out[i] = narrow(widen(gradient[i / channels / pixels * channels + i % channels]) / pixels);
}

// The sum of one float from each thread of a block of 256, returned to all of them.
__device__ inline float block_sum(float mine) {
    __shared__ float part[256];
    __syncthreads();
    part[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    return part[0];
}

// A block for each row: unit length, and the length before.
extern "C" __global__ void normalize(const value *rows, float *unit, float *lengths, int dim, float epsilon) {
    const value *row = rows + (size)blockIdx.x * dim;
    float mine = 0.0f;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) mine += widen(row[i]) * widen(row[i]);
    float length = sqrtf(block_sum(mine) + epsilon);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) unit[(size)blockIdx.x * dim + i] = widen(row[i]) / length;
    if (threadIdx.x == 0) lengths[blockIdx.x] = length;
}

extern "C" __global__ void normalize_gradient(const float *gradient, const float *unit, const float *lengths, value *out, int dim) {
    size start = (size)blockIdx.x * dim;
    float mine = 0.0f;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) mine += gradient[start + i] * unit[start + i];
    float along = block_sum(mine);
    for (int i = threadIdx.x; i < dim; i += blockDim.x)
        out[start + i] = narrow((gradient[start + i] - unit[start + i] * along) / lengths[blockIdx.x]);
}

// The sum of one float from each row of threads of a block of 32 x 8, returned to all of them.
__device__ inline float column_sum(float mine) {
    __shared__ float part[8][32];
    __syncthreads();
    part[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < 8; ++i) sum += part[i][threadIdx.x];
    return sum;
}

// Sums of the rows of a matrix, in two passes: blocks of 32 x 8 threads sum `chunk` rows each to parts [gridDim.y, columns] ...
extern "C" __global__ void sum_rows(const value *matrix, float *parts, int columns, size rows, int chunk) {
    int column = blockIdx.x * 32 + threadIdx.x;
    size start = (size)blockIdx.y * chunk, end = start + chunk < rows ? start + chunk : rows;
    float mine = 0.0f;
    if (column < columns)
        for (size row = start + threadIdx.y; row < end; row += 8) mine += widen(matrix[row * columns + column]);
    float sum = column_sum(mine);
    if (threadIdx.y == 0 && column < columns) parts[(size)blockIdx.y * columns + column] = sum;
}

// ... and these are summed, by blocks of 32 x 8 threads as well.
extern "C" __global__ void sum_parts(const float *parts, float *out, int columns, int count) {
    int column = blockIdx.x * 32 + threadIdx.x;
    float mine = 0.0f;
    if (column < columns)
        for (int i = threadIdx.y; i < count; i += 8) mine += parts[(size)i * columns + column];
    float sum = column_sum(mine);
    if (threadIdx.y == 0 && column < columns) out[column] = sum;
}

// Sums of squares of the columns of a gradient and of its weights, by blocks of 32 x 8 threads for `chunk` rows each, to two arrays of parts
// [gridDim.y, columns] ...
extern "C" __global__ void filter_squares(const float *gradient, const float *weight, float *parts, int columns, size rows, int chunk) {
    int column = blockIdx.x * 32 + threadIdx.x;
    size start = (size)blockIdx.y * chunk, end = start + chunk < rows ? start + chunk : rows;
    float g = 0.0f, w = 0.0f;
    if (column < columns)
        for (size row = start + threadIdx.y; row < end; row += 8) {
            float one = gradient[row * columns + column], other = weight[row * columns + column];
            g += one * one;
            w += other * other;
        }
    g = column_sum(g);
    w = column_sum(w);
    if (threadIdx.y > 0 || column >= columns) return;
    size part = (size)blockIdx.y * columns + column;
    parts[part] = g;
    parts[(size)gridDim.y * columns + part] = w;
}

// ... and the gradient's columns, which are filters, scaled down to `share` of the norm of their weights, which counts as `smallest` at least. The
// grid is the same.
extern "C" __global__ void clip_filters(float *gradient, const float *parts, int columns, size rows, int chunk, float share, float smallest) {
    int column = blockIdx.x * 32 + threadIdx.x;
    if (column >= columns) return;
    float g = 0.0f, w = 0.0f;
    for (unsigned int i = 0; i < gridDim.y; ++i) {
        g += parts[(size)i * columns + column];
        w += parts[((size)gridDim.y + i) * columns + column];
    }
    float norm = sqrtf(g), limit = share * fmaxf(sqrtf(w), smallest);
    if (norm <= limit) return;
    float factor = limit / norm;
    size start = (size)blockIdx.y * chunk, end = start + chunk < rows ? start + chunk : rows;
    for (size row = start + threadIdx.y; row < end; row += 8) gradient[row * columns + column] *= factor;
}

extern "C" __global__ void add(float *target, const float *values, size count) {
    size i = place();
    if (i < count) target[i] += values[i];
}

extern "C" __global__ void blend(float *target, const float *values, float share, size count) {
    size i = place();
    if (i < count) target[i] += share * (values[i] - target[i]);
}

// Sum of squares of many arrays at once: arrays[blockIdx.y] is (address, length); parts [gridDim.y, gridDim.x].
extern "C" __global__ void sum_squares(const size *arrays, float *parts) {
    const float *array = (const float *)arrays[2 * blockIdx.y];
    size length = arrays[2 * blockIdx.y + 1];
    float mine = 0.0f;
    for (size i = place(); i < length; i += (size)gridDim.x * blockDim.x) mine += array[i] * array[i];
    float sum = block_sum(mine);
    if (threadIdx.x == 0) parts[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// The root of the sum of `count` parts, by one block of 256.
extern "C" __global__ void root_of_sum(const float *parts, float *out, int count) {
    float mine = 0.0f;
    for (int i = threadIdx.x; i < count; i += 256) mine += parts[i];
    float sum = block_sum(mine);
    if (threadIdx.x == 0) *out = sqrtf(sum);
}

// The constants of an optimiser's step, as the CPU has them.
struct Rule {
    int adaptive, decoupled;
    float scale, rate, beta1, beta2, epsilon, first_step, second_root;
};

// One step on many weights at once: parameters[blockIdx.y] is (weight, first moment, second moment, gradient, length, decay's bits).
extern "C" __global__ void update(const size *parameters, Rule rule) {
    const size *parameter = parameters + 6 * blockIdx.y;
    float *weight = (float *)parameter[0], *first = (float *)parameter[1], *second = (float *)parameter[2];
    const float *gradients = (const float *)parameter[3];
    size length = parameter[4];
    float decay = __uint_as_float((unsigned int)parameter[5]);
    float kept = rule.decoupled ? 1.0f - rule.rate * decay : 1.0f, coupled = rule.decoupled ? 0.0f : decay;
    for (size i = place(); i < length; i += (size)gridDim.x * blockDim.x) {
        float w = weight[i], g = gradients[i] * rule.scale + coupled * w;
        if (!rule.adaptive) {
            float m = rule.beta1 * first[i] + g;
            first[i] = m;
            weight[i] = w - rule.rate * m;
            continue;
        }
        float m = rule.beta1 * first[i] + (1.0f - rule.beta1) * g;
        float v = rule.beta2 * second[i] + (1.0f - rule.beta2) * g * g;
        first[i] = m;
        second[i] = v;
        weight[i] = kept * w - rule.first_step * m / (sqrtf(v) / rule.second_root + rule.epsilon);
    }
}
