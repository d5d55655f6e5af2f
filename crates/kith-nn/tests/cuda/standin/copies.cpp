// Copies and fills. As with the real driver, pinned memory is read and written when the copy runs, and ordinary memory is staged before the
// call returns.

#include "driver.h"

#include <cstring>

using namespace standin;

static CUresult fill(const Call &call, CUdeviceptr to, const void *pattern, size_t width, size_t count, CUstream stream) {
    if (count == 0) return CUDA_SUCCESS;
    std::string bytes((const char *)pattern, width);
    auto run = [=] {
        for (size_t i = 0; i < count; ++i) memcpy((char *)to + i * width, bytes.data(), width);
    };
    return push(call, stream, {"memset", {{to, width * count, true}}, run});
}

extern "C" {

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    CALL_IN_CONTEXT;
    if (bytes == 0) return CUDA_SUCCESS;
    bool captures = (bool)find(stream)->capture;
    char *pinned = pinned_region(from, bytes);
    Work work{"copy to the device", {{to, bytes, true}}, nullptr};
    if (pinned || captures) {
        if (!pinned) say("a captured copy to the device reads %zu bytes of ordinary host memory at each launch", bytes);
        work.run = [=] {
            if (pinned && pinned_region(from, bytes) != pinned) die("the pinned memory %p that is to be copied was freed", from);
            memcpy((void *)to, from, bytes);
        };
    } else {
        work.run = [to, staged = std::string((const char *)from, bytes)] { memcpy((void *)to, staged.data(), staged.size()); };
    }
    return push(call, stream, std::move(work));
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream handle) {
    CALL_IN_CONTEXT;
    if (bytes == 0) return CUDA_SUCCESS;
    shared_ptr<Stream> stream = find(handle);
    Capture *capture = stream->capture.get();
    char *pinned = pinned_region(to, bytes);
    if (capture && !pinned)
        return broken(call, *capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a captured copy to ordinary host memory");
    // The values must not be readable before the copy has run.
    if (pinned && !capture) memset(to, 0xff, bytes);
    auto run = [=] {
        if (pinned && pinned_region(to, bytes) != pinned) die("the pinned memory %p that is copied to was freed", to);
        memcpy(to, (const void *)from, bytes);
    };
    TRY(push(call, handle, {"copy to the host", {{from, bytes, false}}, run}));
    if (!pinned) run_all(*stream);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    CALL_IN_CONTEXT;
    if (bytes == 0) return CUDA_SUCCESS;
    Reach target{to, bytes, true}, source{from, bytes, false};
    if (meet(target, source)) die("a copy within the device from 0x%llx to 0x%llx overlaps itself", from, to);
    return push(call, stream, {"copy within the device", {target, source}, [=] { memcpy((void *)to, (const void *)from, bytes); }});
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    CALL_IN_CONTEXT;
    return fill(call, to, &value, sizeof value, count, stream);
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    CALL_IN_CONTEXT;
    return fill(call, to, &value, sizeof value, count, stream);
}

}  // extern "C"
