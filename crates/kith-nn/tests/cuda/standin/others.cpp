// Small parts. NVRTC returns the source as the compiled code. cuRAND's generators generate nothing. The CUDA runtime accepts the kernels that
// candle registers at its start and that are never run. A function that the stand-in does not implement stops the program.

#include "standin.h"

#include <cstring>

using namespace standin;
using Program = std::string;

extern "C" {

int nvrtcCreateProgram(Program **program, const char *source, const char *, int, const char *const *, const char *const *) {
    count(__func__);
    *program = new Program(source);
    return 0;
}

int nvrtcDestroyProgram(Program **program) {
    delete *program;
    *program = nullptr;
    return 0;
}

int nvrtcCompileProgram(Program *, int, const char *const *) {
    count(__func__);
    return 0;
}

int nvrtcGetPTXSize(Program *program, size_t *size) {
    *size = program->size() + 1;
    return 0;
}

int nvrtcGetPTX(Program *program, char *code) {
    memcpy(code, program->c_str(), program->size() + 1);
    return 0;
}

int nvrtcGetProgramLogSize(Program *, size_t *size) {
    *size = 1;
    return 0;
}

int nvrtcGetProgramLog(Program *, char *log) {
    *log = 0;
    return 0;
}

int curandCreateGenerator(void **generator, int) {
    const int ALLOCATION_FAILED = 102;
    if (forbidden_in_capture(__func__)) return ALLOCATION_FAILED;
    *generator = new int;
    return 0;
}

int curandDestroyGenerator(void *generator) {
    delete (int *)generator;
    return 0;
}

int curandSetStream(void *, CUstream) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }

void **__cudaRegisterFatBinary(void *) {
    static void *nothing;
    return &nothing;
}
void __cudaRegisterFatBinaryEnd(void **) {}
void __cudaUnregisterFatBinary(void **) {}
void __cudaRegisterFunction(void **, const char *, char *, const char *, int, void *, void *, void *, void *, int *) {}
void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int) {}

void standin_missing(const char *name) { die("%s is not implemented", name); }

}  // extern "C"
