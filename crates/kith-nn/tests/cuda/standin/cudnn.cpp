// The part of cuDNN that the program calls: convolutions and both their gradients, channels last, in float or bf16. The algorithms differ in the
// working memory that they ask for. All compute the same.

#include "values.h"

#include <cstdlib>
#include <optional>

using namespace standin;

enum { DNN_OK = 0, DNN_NOT_INITIALIZED = 1001, DNN_BAD_PARAM = 2000, DNN_NOT_SUPPORTED = 3000, DNN_EXECUTION_FAILED = 5000 };

struct Dnn {
    CUstream stream = nullptr;
};

// A tensor [images, height, width, channels] or a filter [outputs, height, width, inputs].
struct Shape {
    Type type;
    int images = 0, channels = 0, height = 0, width = 0;
    size_t count() const { return size_t(images) * channels * height * width; }
    size_t bytes() const { return count() * standin::width(type); }
};

// A tensor or filter with its address.
struct Tensor {
    Shape shape;
    const void *at;
    Reach reach() const { return reads(at, shape.bytes()); }
};

// Its values, for use while work runs.
struct Floats {
    vector<float> room;
    const float *at;
    explicit Floats(const Tensor &of) : at(widened(of.shape.type, of.at, of.shape.count(), room)) {}
};

struct Taps {
    int pad_y = 0, pad_x = 0, stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1, math = 0;
};

struct Activation {
    int mode = -1;
};

struct Performance {
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
};

static int describe(const char *call, Shape *shape, int format, int type, int images, int channels, int height, int width) {
    const int NHWC = 1, FLOAT = 0, BFLOAT16 = 9;
    if (format != NHWC || (type != FLOAT && type != BFLOAT16)) die("%s: format %d, type %d", call, format, type);
    if (images <= 0 || channels <= 0 || height <= 0 || width <= 0) return DNN_BAD_PARAM;
    *shape = {type == FLOAT ? Float32 : Bfloat16, images, channels, height, width};
    return DNN_OK;
}

// What is to be computed; false if the shapes do not fit each other.
static bool fits(const char *call, const Shape &x, const Shape &filter, const Taps &taps, const Shape &y, Convolution &shape) {
    int height = (x.height + 2 * taps.pad_y - taps.dilation_y * (filter.height - 1) - 1) / taps.stride_y + 1;
    int width = (x.width + 2 * taps.pad_x - taps.dilation_x * (filter.width - 1) - 1) / taps.stride_x + 1;
    bool types = x.type == filter.type && x.type == y.type, channels = filter.channels == x.channels && y.channels == filter.images;
    if (!types || !channels || y.images != x.images || y.height != height || y.width != width) {
        say("%s: shapes that do not fit each other", call);
        return false;
    }
    auto size = [](int n) { return size_t(n); };
    shape = {size(x.images), size(x.height), size(x.width), size(x.channels), size(y.channels), size(filter.height), size(filter.width),
             size(height), size(width), taps.pad_y, taps.pad_x, taps.stride_y, taps.stride_x, taps.dilation_y, taps.dilation_x};
    return true;
}

// Algorithm 1 needs working memory in every direction, the others need none.
static size_t workspace(int algorithm, const Shape &x) { return algorithm == 1 ? 1024 * size_t(x.images) : 0; }

static int list(const char *call, const Shape &x, const Shape &filter, const Taps &taps, const Shape &y, int most, int *listed, Performance *found) {
    count(call);
    Convolution shape;
    if (!fits(call, x, filter, taps, y, shape)) return DNN_BAD_PARAM;
    // The fastest first, which is not the same algorithm for all shapes.
    int first = taps.stride_y == 1 ? 1 : 0;
    *listed = most < 2 ? most : 2;
    for (int i = 0; i < *listed; ++i) {
        int algorithm = i == 0 ? first : 1 - first;
        found[i] = {algorithm, DNN_OK, 1.0f + i, workspace(algorithm, x), 1, taps.math, {}};
    }
    return DNN_OK;
}

// Queues `run`, which reads `arguments` and writes `result` and the working memory. The working memory is filled with NaN afterwards.
static int queue(const char *call, Dnn *handle, int algorithm, const Shape &x, void *work, size_t work_bytes, vector<Reach> arguments, Reach result,
                 std::function<void()> run) {
    size_t wanted = workspace(algorithm, x);
    if (work_bytes < wanted || (wanted && !work)) {
        say("%s: %zu bytes of working memory are too few", call, work_bytes);
        return DNN_BAD_PARAM;
    }
    if (work) arguments.push_back(writes(work, work_bytes));
    apart(call, result, arguments);
    if (work) apart(call, arguments.back(), {arguments.begin(), arguments.end() - 1});
    arguments.push_back(result);
    auto all = [=] {
        if (work) memset(work, 0xff, work_bytes);
        run();
    };
    return enqueue(handle->stream, {call, arguments, all}) ? DNN_EXECUTION_FAILED : DNN_OK;
}

extern "C" {

int cudnnCreate(Dnn **handle) {
    if (forbidden_in_capture(__func__)) return DNN_NOT_INITIALIZED;
    *handle = new Dnn;
    return DNN_OK;
}

int cudnnDestroy(Dnn *handle) {
    if (forbidden_in_capture(__func__)) return DNN_NOT_INITIALIZED;
    delete handle;
    return DNN_OK;
}

int cudnnSetStream(Dnn *handle, CUstream stream) {
    handle->stream = stream;
    return DNN_OK;
}

#define DESCRIPTOR(name, type)                               \
    int cudnnCreate##name##Descriptor(type **descriptor) {   \
        count(__func__);                                     \
        *descriptor = new type;                              \
        return DNN_OK;                                       \
    }                                                        \
    int cudnnDestroy##name##Descriptor(type *descriptor) {   \
        count(__func__);                                     \
        delete descriptor;                                   \
        return DNN_OK;                                       \
    }
DESCRIPTOR(Tensor, Shape)
DESCRIPTOR(Filter, Shape)
DESCRIPTOR(Convolution, Taps)
DESCRIPTOR(Activation, Activation)

int cudnnSetTensor4dDescriptor(Shape *shape, int format, int type, int images, int channels, int height, int width) {
    return describe(__func__, shape, format, type, images, channels, height, width);
}

int cudnnSetFilter4dDescriptor(Shape *shape, int type, int format, int outputs, int inputs, int height, int width) {
    return describe(__func__, shape, format, type, outputs, inputs, height, width);
}

int cudnnSetConvolution2dDescriptor(Taps *taps, int pad_y, int pad_x, int stride_y, int stride_x, int dilation_y, int dilation_x, int mode,
                                    int type) {
    const int CROSS_CORRELATION = 1, FLOAT = 0;
    if (mode != CROSS_CORRELATION || type != FLOAT) die("%s: mode %d, type %d", __func__, mode, type);
    *taps = {pad_y, pad_x, stride_y, stride_x, dilation_y, dilation_x};
    return DNN_OK;
}

int cudnnSetConvolutionMathType(Taps *taps, int math) {
    taps->math = math;
    return DNN_OK;
}

int cudnnSetActivationDescriptor(Activation *activation, int mode, int, double) {
    activation->mode = mode;
    return DNN_OK;
}

int cudnnGetConvolutionForwardAlgorithm_v7(Dnn *, Shape *x, Shape *filter, Taps *taps, Shape *y, int most, int *listed, Performance *found) {
    return list(__func__, *x, *filter, *taps, *y, most, listed, found);
}

int cudnnGetConvolutionBackwardDataAlgorithm_v7(Dnn *, Shape *filter, Shape *dy, Taps *taps, Shape *dx, int most, int *listed, Performance *found) {
    return list(__func__, *dx, *filter, *taps, *dy, most, listed, found);
}

int cudnnGetConvolutionBackwardFilterAlgorithm_v7(Dnn *, Shape *x, Shape *dy, Taps *taps, Shape *dw, int most, int *listed, Performance *found) {
    return list(__func__, *x, *dw, *taps, *dy, most, listed, found);
}

int cudnnGetConvolutionForwardWorkspaceSize(Dnn *, Shape *x, Shape *, Taps *, Shape *, int algorithm, size_t *bytes) {
    *bytes = workspace(algorithm, *x);
    return algorithm <= 1 ? DNN_OK : DNN_NOT_SUPPORTED;
}

int cudnnGetConvolutionBackwardDataWorkspaceSize(Dnn *, Shape *, Shape *, Taps *, Shape *dx, int algorithm, size_t *bytes) {
    *bytes = workspace(algorithm, *dx);
    return algorithm <= 1 ? DNN_OK : DNN_NOT_SUPPORTED;
}

int cudnnGetConvolutionBackwardFilterWorkspaceSize(Dnn *, Shape *x, Shape *, Taps *, Shape *, int algorithm, size_t *bytes) {
    *bytes = workspace(algorithm, *x);
    return algorithm <= 1 || algorithm == 3 ? DNN_OK : DNN_NOT_SUPPORTED;
}

int cudnnConvolutionForward(Dnn *handle, const float *alpha, Shape *x_shape, const void *x, Shape *filter, const void *w, Taps *taps, int algorithm,
                            void *work, size_t work_bytes, const float *beta, Shape *y_shape, void *y) {
    Convolution shape;
    if (!fits(__func__, *x_shape, *filter, *taps, *y_shape, shape)) return DNN_BAD_PARAM;
    Tensor in{*x_shape, x}, weights{*filter, w}, out{*y_shape, y};
    auto run = [=, alpha = *alpha, beta = *beta] {
        vector<float> sums(out.shape.count());
        convolve(shape, Floats(in).at, Floats(weights).at, sums.data());
        finish(out.shape.type, y, sums, alpha, beta);
    };
    return queue(__func__, handle, algorithm, *x_shape, work, work_bytes, {in.reach(), weights.reach()}, writes(y, y_shape->bytes()), run);
}

int cudnnConvolutionBiasActivationForward(Dnn *handle, const float *alpha1, Shape *x_shape, const void *x, Shape *filter, const void *w, Taps *taps,
                                          int algorithm, void *work, size_t work_bytes, const float *alpha2, Shape *z_shape, const void *z,
                                          Shape *bias_shape, const void *bias, Activation *activation, Shape *y_shape, void *y) {
    const int RELU = 1, IDENTITY = 5, PRECOMPUTED = 1;
    static bool never = getenv("STANDIN_NO_FUSE") != nullptr;
    Convolution shape;
    if (!fits(__func__, *x_shape, *filter, *taps, *y_shape, shape)) return DNN_BAD_PARAM;
    if (bias_shape->count() != shape.outputs || bias_shape->channels != y_shape->channels || z_shape->count() != y_shape->count())
        return DNN_BAD_PARAM;
    bool relu = activation->mode == RELU;
    if (never || (!relu && (activation->mode != IDENTITY || algorithm != PRECOMPUTED))) return DNN_NOT_SUPPORTED;
    Tensor in{*x_shape, x}, weights{*filter, w}, biases{*bias_shape, bias}, added{*z_shape, z}, out{*y_shape, y};
    vector<Reach> arguments = {in.reach(), weights.reach(), biases.reach()};
    // z may be y. With a factor of 0 it is not read.
    if (*alpha2 != 0 && z != y) arguments.push_back(added.reach());
    auto run = [=, alpha1 = *alpha1, alpha2 = *alpha2] {
        vector<float> sums(out.shape.count());
        convolve(shape, Floats(in).at, Floats(weights).at, sums.data());
        Floats bias(biases);
        std::optional<Floats> before;
        if (alpha2 != 0) before.emplace(added);
        for (size_t i = 0; i < sums.size(); ++i) {
            float f = alpha1 * sums[i] + (before ? alpha2 * before->at[i] : 0.0f) + bias.at[i % shape.outputs];
            // A NaN stays a NaN.
            store(out.shape.type, y, i, relu && f <= 0.0f ? 0.0f : f);
        }
    };
    return queue(__func__, handle, algorithm, *x_shape, work, work_bytes, arguments, writes(y, y_shape->bytes()), run);
}

int cudnnConvolutionBackwardData(Dnn *handle, const float *alpha, Shape *filter, const void *w, Shape *dy_shape, const void *dy, Taps *taps,
                                 int algorithm, void *work, size_t work_bytes, const float *beta, Shape *dx_shape, void *dx) {
    Convolution shape;
    if (!fits(__func__, *dx_shape, *filter, *taps, *dy_shape, shape)) return DNN_BAD_PARAM;
    Tensor weights{*filter, w}, slopes{*dy_shape, dy}, out{*dx_shape, dx};
    auto run = [=, alpha = *alpha, beta = *beta] {
        vector<float> sums(out.shape.count());
        gradient_of_input(shape, Floats(weights).at, Floats(slopes).at, sums.data());
        finish(out.shape.type, dx, sums, alpha, beta);
    };
    return queue(__func__, handle, algorithm, *dx_shape, work, work_bytes, {weights.reach(), slopes.reach()}, writes(dx, dx_shape->bytes()), run);
}

int cudnnConvolutionBackwardFilter(Dnn *handle, const float *alpha, Shape *x_shape, const void *x, Shape *dy_shape, const void *dy, Taps *taps,
                                   int algorithm, void *work, size_t work_bytes, const float *beta, Shape *filter, void *dw) {
    Convolution shape;
    if (!fits(__func__, *x_shape, *filter, *taps, *dy_shape, shape)) return DNN_BAD_PARAM;
    Tensor in{*x_shape, x}, slopes{*dy_shape, dy}, out{*filter, dw};
    auto run = [=, alpha = *alpha, beta = *beta] {
        vector<float> sums(out.shape.count());
        gradient_of_weights(shape, Floats(in).at, Floats(slopes).at, sums.data());
        finish(out.shape.type, dw, sums, alpha, beta);
    };
    return queue(__func__, handle, algorithm, *x_shape, work, work_bytes, {in.reach(), slopes.reach()}, writes(dw, filter->bytes()), run);
}

}  // extern "C"
