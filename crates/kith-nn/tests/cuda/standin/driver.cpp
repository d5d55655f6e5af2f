// The driver's state, its lock and its messages, and the calls for the device and its context.

#include "driver.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace standin {

thread_local CUcontext thread_context = nullptr;
const char *current = nullptr;

static void print(const char *format, va_list list) {
    char line[1024];
    vsnprintf(line, sizeof line, format, list);
    fprintf(stderr, "stand-in: %s\n", line);
}

void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    print(format, list);
    va_end(list);
}

void die(const char *format, ...) {
    va_list list;
    va_start(list, format);
    print(format, list);
    va_end(list);
    if (current) say("... while running %s", current);
    abort();
}

static size_t asked(const char *variable, size_t otherwise = 0) {
    const char *value = getenv(variable);
    return value ? strtoull(value, nullptr, 10) : otherwise;
}

static State *make() {
    State *all = new State;
    all->total = asked("STANDIN_MEMORY_MB", 16384) << 20;
    all->breaks_at = asked("STANDIN_BREAK_CAPTURE");
    all->counting = asked("STANDIN_COUNT"), all->tracing = asked("STANDIN_TRACE"), all->fails_captures = asked("STANDIN_FAIL_CAPTURE");
    if (all->counting)
        atexit([] {
            for (auto &[name, number] : state().counts) fprintf(stderr, "stand-in: %9ld %s\n", number, name.c_str());
        });
    return all;
}

State &state() {
    // Never destroyed: threads may still run when destructors do.
    static State *all = make();
    return *all;
}

CUresult Call::fails(CUresult error, const char *why) const {
    const char *text = nullptr;
    cuGetErrorString(error, &text);
    say("%s: %s (%s)", name, why, text);
    return error;
}

void count(const char *name) { Call call(name); }

}  // namespace standin

using namespace standin;

static const CUcontext CONTEXT = (CUcontext)0xc0de;

extern "C" {

CUresult cuInit(unsigned) {
    CALL;
    open_memory();
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
#define NAME(error) case error: *text = #error; break;
    switch (error) {
        NAME(CUDA_SUCCESS) NAME(CUDA_ERROR_INVALID_VALUE) NAME(CUDA_ERROR_OUT_OF_MEMORY) NAME(CUDA_ERROR_INVALID_CONTEXT)
        NAME(CUDA_ERROR_INVALID_DEVICE) NAME(CUDA_ERROR_NOT_FOUND) NAME(CUDA_ERROR_NOT_READY) NAME(CUDA_ERROR_ILLEGAL_STATE)
        NAME(CUDA_ERROR_NOT_SUPPORTED) NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) NAME(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
        NAME(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED) NAME(CUDA_ERROR_STREAM_CAPTURE_UNJOINED) NAME(CUDA_ERROR_STREAM_CAPTURE_ISOLATION)
        NAME(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) NAME(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD) NAME(CUDA_ERROR_CAPTURED_EVENT)
        default: *text = "an error without a name in the stand-in";
    }
#undef NAME
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **text) { return cuGetErrorString(error, text); }

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    CALL;
    if (ordinal != 0) return call.fails(CUDA_ERROR_INVALID_DEVICE, "there is one device, 0");
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    CALL;
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
        case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
        default: die("attribute %d of the device is not known", (int)attribute);
    }
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
    CALL;
    *context = CONTEXT;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) {
    CALL;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = thread_context;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    CALL;
    thread_context = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    CALL_IN_CONTEXT;
    *least = 0, *greatest = -5;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
    CALL_IN_CONTEXT;
    for (auto &capture : state().captures) return broken(call, *capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream captures");
    run_everything();
    return CUDA_SUCCESS;
}

}  // extern "C"
