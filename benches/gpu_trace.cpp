// Writes each kernel, copy and fill that a program runs on an NVIDIA GPU to the file that GPU_TRACE names: what, stream, start and end in
// nanoseconds, name, separated by tabs. Those within CUDA graphs are among them. The driver loads it into any program by itself:
//
//     g++ -O2 -shared -fPIC -I$CUDA_HOME/include -I$CUPTI/include -o libtrace.so benches/gpu_trace.cpp -L$CUPTI/lib -l:libcupti.so.13
//     GPU_TRACE=trace.tsv CUDA_INJECTION64_PATH=$PWD/libtrace.so program arguments...
//
// benches/gpu_trace.py does both and sums up what is found.

#include <cupti.h>

#include <cstdio>
#include <initializer_list>
#include <cstdlib>

static FILE *out;

static void line(const char *what, unsigned stream, unsigned long long start, unsigned long long end, const char *name) {
    fprintf(out, "%s\t%u\t%llu\t%llu\t%s\n", what, stream, start, end, name);
}

static void write(CUpti_Activity *record) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
        auto *kernel = (CUpti_ActivityKernel10 *)record;
        line("kernel", kernel->streamId, kernel->start, kernel->end, kernel->name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
        auto *copy = (CUpti_ActivityMemcpy6 *)record;
        char name[64];
        snprintf(name, sizeof name, "copy of %llu bytes, kind %u", (unsigned long long)copy->bytes, copy->copyKind);
        line("copy", copy->streamId, copy->start, copy->end, name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
        auto *fill = (CUpti_ActivityMemset4 *)record;
        line("fill", fill->streamId, fill->start, fill->end, "fill");
    }
}

static void CUPTIAPI want(uint8_t **buffer, size_t *bytes, size_t *most) {
    *bytes = 8 << 20;
    *buffer = (uint8_t *)aligned_alloc(8, *bytes);
    *most = 0;
}

static void CUPTIAPI done(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t valid) {
    CUpti_Activity *record = nullptr;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) write(record);
    free(buffer);
}

static void finish() {
    cuptiActivityFlushAll(1);
    fclose(out);
}

// What the driver calls when it starts.
extern "C" int InitializeInjection() {
    const char *path = getenv("GPU_TRACE");
    out = path ? fopen(path, "w") : nullptr;
    if (!out) return 0;
    cuptiActivityRegisterCallbacks(want, done);
    for (auto kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET}) cuptiActivityEnable(kind);
    atexit(finish);
    return 1;
}
