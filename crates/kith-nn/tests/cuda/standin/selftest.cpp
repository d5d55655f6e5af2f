// Tests the stand-in through cuda.h: lazy streams, memory, capture and replay, and misuse that it must refuse. selftest.sh builds it and runs it
// with kernels.cu as its argument. cuDNN and cuBLAS are tested by the program's own tests.

#include <cuda.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

static int failures = 0;

static void same_at(int line, const char *what, double found, double wanted) {
    if (found == wanted) return;
    fprintf(stdout, "line %d: %s is %g in place of %g\n", line, what, found, wanted);
    ++failures;
}
#define SAME(found, wanted) same_at(__LINE__, #found, (double)(found), (double)(wanted))
#define OK(call) SAME(call, CUDA_SUCCESS)

// Runs `what` in a process of its own. It must end that process, with `words` on standard error.
static void stops_at(int line, const char *words, const std::function<void()> &what) {
    int ends[2];
    if (pipe(ends)) abort();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        what();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char some[1000];
    for (ssize_t n; (n = read(ends[0], some, sizeof some)) > 0;) said.append(some, n);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && said.find(words) != std::string::npos) {
        printf("  as it should: %s", said.substr(0, said.find('\n') + 1).c_str());
        return;
    }
    printf("line %d: status %d, \"%s\" not said, but: %s\n", line, status, words, said.c_str());
    ++failures;
}
#define STOPS(words, ...) stops_at(__LINE__, words, [&] { __VA_ARGS__; })

static CUmodule module_;
static CUstream stream, other;

static CUfunction function(const char *name) {
    CUfunction found;
    OK(cuModuleGetFunction(&found, module_, name));
    return found;
}

static CUdeviceptr take(size_t floats, CUstream on = stream) {
    CUdeviceptr at;
    OK(cuMemAllocAsync(&at, floats * 4, on));
    return at;
}

// target += values, computed by the kernel `add`.
static CUresult add(CUdeviceptr target, CUdeviceptr values, unsigned long long count, CUstream on = stream) {
    static CUfunction kernel = function("add");
    void *arguments[] = {&target, &values, &count};
    return cuLaunchKernel(kernel, (count + 255) / 256, 1, 1, 256, 1, 1, 0, on, arguments, nullptr);
}

static CUdeviceptr upload(std::vector<float> values, CUstream on = stream) {
    CUdeviceptr at = take(values.size(), on);
    OK(cuMemcpyHtoDAsync(at, values.data(), values.size() * 4, on));
    return at;
}

static float first(CUdeviceptr at, CUstream on = stream) {
    float value = -1;
    OK(cuMemcpyDtoHAsync(&value, at, 4, on));
    return value;
}

static CUgraphExec record(const std::function<void()> &what, unsigned long long flags = 0, CUresult wanted = CUDA_SUCCESS) {
    CUgraph graph;
    CUgraphExec executable = nullptr;
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    what();
    SAME(cuStreamEndCapture(stream, &graph), wanted);
    if (wanted == CUDA_SUCCESS) {
        OK(cuGraphInstantiateWithFlags(&executable, graph, flags));
        OK(cuGraphDestroy(graph));
    } else {
        SAME(graph == nullptr, true);
    }
    CUstreamCaptureStatus status;
    OK(cuStreamIsCapturing(stream, &status));
    SAME(status, CU_STREAM_CAPTURE_STATUS_NONE);
    return executable;
}

static unsigned long long used() {
    CUmemoryPool pool;
    unsigned long long bytes;
    OK(cuDeviceGetMemPool(&pool, 0));
    OK(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &bytes));
    return bytes;
}

static void memory() {
    auto before = used();
    CUdeviceptr a = upload({1, 2}), b = upload({10, 20});
    SAME(used() - before, 16);
    OK(add(a, b, 2));
    SAME(first(a), 11);
    OK(cuMemFreeAsync(b, stream));
    SAME(used() - before, 8);
    STOPS("freed", add(a, b, 2));
    STOPS("reaches for 8 bytes", cuMemsetD32Async(a + 4, 0, 2, stream));
    // Only the kernel knows that 200 is a length. There is no memory behind an array, whose size is rounded up to 256 bytes.
    STOPS("touches", add(a, a, 200); cuStreamSynchronize(stream));
    STOPS("which is in no array", add(4096, a, 2));
    CUdeviceptr c = take(1);
    SAME(first(c) != first(c), true);  // not a number
    SAME(cuMemFreeAsync(a + 4, stream), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFreeAsync(a, stream));
    SAME(cuMemFreeAsync(a, stream), CUDA_ERROR_INVALID_VALUE);
    OK(cuMemFreeAsync(c, stream));
    SAME(used(), before);
    // Addresses in a table are seen by the kernel alone.
    CUdeviceptr array = upload({3, 4}), parts = take(1);
    unsigned long long table[] = {array, 2};
    CUdeviceptr tables = take(4);
    OK(cuMemcpyHtoDAsync(tables, table, sizeof table, stream));
    void *arguments[] = {&tables, &parts};
    CUfunction squares = function("sum_squares");
    OK(cuLaunchKernel(squares, 1, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr));
    SAME(first(parts), 25);
    OK(cuMemFreeAsync(array, stream));
    STOPS("kernel sum_squares touches", cuLaunchKernel(squares, 1, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr); cuStreamSynchronize(stream));
    SAME(cuLaunchKernel(squares, 0, 1, 1, 256, 1, 1, 0, stream, arguments, nullptr), CUDA_ERROR_INVALID_VALUE);
}

static void lazy_streams() {
    float *pinned;
    OK(cuMemHostAlloc((void **)&pinned, 8, 0));
    CUdeviceptr a = take(2), b = take(2);
    CUevent left;
    OK(cuEventCreate(&left, 0));
    // The host overwrites the memory too early: the copy shows it.
    pinned[0] = 1;
    OK(cuMemcpyHtoDAsync(a, pinned, 4, stream));
    pinned[0] = 2;
    SAME(first(a), 2);
    // The host waits for the event first: the copy is right.
    pinned[0] = 3;
    OK(cuMemcpyHtoDAsync(a, pinned, 4, stream));
    OK(cuEventRecord(left, stream));
    OK(cuMemsetD32Async(b, 0, 2, stream));
    OK(cuEventSynchronize(left));
    pinned[0] = 4;
    SAME(first(a), 3);
    // Pageable memory may be overwritten at once.
    float value = 5;
    OK(cuMemcpyHtoDAsync(a, &value, 4, stream));
    value = 6;
    SAME(first(a), 5);
    // A copy to pinned memory has not arrived before the host waits for it.
    OK(cuMemcpyDtoHAsync(pinned, a, 4, stream));
    SAME(pinned[0] == 5, false);
    SAME(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    OK(cuStreamSynchronize(stream));
    SAME(pinned[0], 5);
    SAME(cuStreamQuery(stream), CUDA_SUCCESS);
    // Without an event, streams do not wait for each other.
    OK(cuMemsetD32Async(a, 0, 1, stream));
    STOPS("a race: free comes before memset", cuMemFreeAsync(a, other); cuStreamSynchronize(other));
    STOPS("a race: copy to the host comes before memset", first(a, other));
    STOPS("not allocated yet", first(take(1, other)));
    OK(cuEventRecord(left, stream));
    OK(cuStreamWaitEvent(other, left, 0));
    SAME(first(a, other), 0);
    OK(cuMemFreeHost(pinned));
    OK(cuEventDestroy(left));
    OK(cuMemFreeAsync(a, stream));
    OK(cuMemFreeAsync(b, stream));
}

static void graphs() {
    CUdeviceptr a = upload({1}), b = upload({10}), inner = 0;
    CUgraphExec twice = record([&] {
        inner = take(1);
        OK(cuMemcpyDtoDAsync(inner, b, 4, stream));
        OK(add(inner, b, 1));
        OK(add(a, inner, 1));
        OK(cuMemFreeAsync(inner, stream));
    });
    SAME(first(a), 1);
    OK(cuGraphLaunch(twice, stream));
    SAME(first(a), 21);
    OK(cuGraphLaunch(twice, stream));
    OK(cuGraphLaunch(twice, stream));
    SAME(first(a), 61);
    STOPS("its graph was not launched", first(inner));
    SAME(cuMemFreeAsync(inner, stream), CUDA_ERROR_INVALID_VALUE);
    // The memory that the graph reads was freed.
    OK(cuMemFreeAsync(b, stream));
    STOPS("freed", cuGraphLaunch(twice, stream));
    OK(cuGraphExecDestroy(twice));
    STOPS("does not exist", cuGraphLaunch(twice, stream));

    // The graph leaves memory allocated.
    for (bool frees : {false, true}) {
        auto sets = [&] { inner = take(1), OK(cuMemsetD32Async(inner, 0x40000000, 1, stream)); };
        CUgraphExec leaves = record(sets, frees ? CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH : 0);
        OK(cuGraphLaunch(leaves, stream));
        SAME(first(inner), 2);
        SAME(cuGraphLaunch(leaves, stream), frees ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
        SAME(first(inner), 2);
        OK(cuMemFreeAsync(inner, stream));
        STOPS("reaches for", first(inner));
        OK(cuGraphLaunch(leaves, stream));
        SAME(first(inner), 2);
        OK(cuMemFreeAsync(inner, stream));
        OK(cuGraphExecDestroy(leaves));
    }

    // A copy from pinned memory in a graph reads it at each launch.
    float *pinned;
    OK(cuMemHostAlloc((void **)&pinned, 4, 0));
    CUgraphExec copies = record([&] { OK(cuMemcpyHtoDAsync(a, pinned, 4, stream)); });
    for (float value : {7.0f, 8.0f}) {
        pinned[0] = value;
        OK(cuGraphLaunch(copies, stream));
        SAME(first(a), value);
    }
    OK(cuMemFreeHost(pinned));
    STOPS("was freed", cuGraphLaunch(copies, stream); cuStreamSynchronize(stream));

    // Another stream joins the capture. Its origin waits for it, or does not.
    CUevent here, there;
    OK(cuEventCreate(&here, 0));
    OK(cuEventCreate(&there, 0));
    CUdeviceptr c = upload({5});
    for (bool joins : {true, false}) {
        CUgraphExec forked = record([&] {
            OK(cuEventRecord(here, stream));
            OK(cuStreamWaitEvent(other, here, 0));
            OK(add(a, c, 1, other));
            OK(cuEventRecord(there, other));
            if (joins) OK(cuStreamWaitEvent(stream, there, 0));
        }, 0, joins ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        if (!joins) continue;
        OK(cuGraphLaunch(forked, stream));
        SAME(first(a), 13);
    }
}

static void refused() {
    CUevent event, outside;
    OK(cuEventCreate(&event, 0));
    OK(cuEventCreate(&outside, 0));
    CUdeviceptr a = upload({1});
    OK(cuEventRecord(outside, stream));
    OK(cuStreamSynchronize(stream));
    auto breaks = [&](const std::function<void()> &what) {
        record([&] {
            what();
            CUstreamCaptureStatus status;
            OK(cuStreamIsCapturing(stream, &status));
            SAME(status, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
            SAME(add(a, a, 1), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        }, 0, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        OK(add(a, a, 1));
    };
    breaks([&] { SAME(cuStreamSynchronize(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); });
    breaks([&] { SAME(cuStreamQuery(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); });
    breaks([&] { SAME(cuCtxSynchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); });
    breaks([&] { OK(cuEventRecord(event, stream)), SAME(cuEventSynchronize(event), CUDA_ERROR_CAPTURED_EVENT); });
    SAME(cuEventSynchronize(event), CUDA_ERROR_CAPTURED_EVENT);  // even afterwards
    breaks([&] { SAME(cuStreamWaitEvent(stream, outside, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION); });
    breaks([&] { SAME(cuMemFreeAsync(a, stream), CUDA_ERROR_INVALID_VALUE); });
    breaks([&] { CUdeviceptr at; SAME(cuMemAlloc(&at, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); });
    breaks([&] { float value; SAME(cuMemcpyDtoHAsync(&value, a, 4, stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); });
    breaks([&] { SAME(cuStreamSynchronize(other), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); });
    SAME(first(a), 512);
    CUgraph graph;
    SAME(cuStreamEndCapture(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
}

int main(int, char **arguments) {
    CUcontext context;
    CUmodule half;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    std::stringstream source;
    source << std::ifstream(arguments[1]).rdbuf();
    OK(cuModuleLoadData(&module_, ("#define HALF 0\n" + source.str()).c_str()));
    OK(cuModuleLoadData(&half, ("#define HALF 1\n" + source.str()).c_str()));
    STOPS("is not the one", cuModuleLoadData(&half, "#define HALF 1\n"));
    OK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, 0));
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    memory();
    lazy_streams();
    graphs();
    refused();
    printf("%d failures\n", failures);
    return failures > 0;
}
