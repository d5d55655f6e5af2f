// Modules and launches of kernels. A module's image is its source (others.cpp): the kernels.cu that the stand-in was built with, after a line
// that defines HALF. Nothing is compiled: a kernel is looked up in the tables of kernels.cpp.

#include "driver.h"

#include <cstring>

using namespace standin;

extern "C" {

CUresult cuModuleLoadData(CUmodule *handle, const void *image) {
    CALL_IN_CONTEXT;
    TRY(forbidden(call));
    std::string source((const char *)image);
    bool half = source.starts_with("#define HALF 1\n");
    if (!half && !source.starts_with("#define HALF 0\n")) die("a module that does not begin with #define HALF 0 or 1: %.60s", source.c_str());
    if (source.substr(source.find('\n') + 1) != kernels_source)
        die("the program's kernels.cu is not the one the stand-in was built with: run build.sh again");
    *handle = (CUmodule)keep(state().modules, std::make_shared<Module>(Module{half ? &kernels_half : &kernels_float}));
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule handle) {
    CALL;
    TRY(forbidden(call));
    shared_ptr<Module> module = find(state().modules, handle, "module");
    run_everything();
    module->loaded = false;
    state().modules.erase(module.get());
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *handle, CUmodule module_handle, const char *name) {
    CALL_IN_CONTEXT;
    shared_ptr<Module> module = find(state().modules, module_handle, "module");
    for (const Kernel &kernel : *module->kernels)
        if (strcmp(kernel.name, name) == 0) {
            *handle = (CUfunction)&state().functions.emplace_back(Function{module, &kernel});
            return CUDA_SUCCESS;
        }
    return call.fails(CUDA_ERROR_NOT_FOUND, name);
}

CUresult cuLaunchKernel(CUfunction handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                        CUstream stream, void **arguments, void **extra) {
    CALL_IN_CONTEXT;
    const Kernel *kernel = ((Function *)handle)->kernel;
    if (extra || shared) die("kernel %s: packed arguments and dynamic shared memory are not implemented", kernel->name);
    bool empty = !gx || !gy || !gz || !bx || !by || !bz;
    if (empty || gx > 0x7fffffff || gy > 65535 || gz > 65535 || uint64_t(bx) * by * bz > 1024 || bz > 64) {
        say("kernel %s: a grid of %u %u %u blocks of %u %u %u threads", kernel->name, gx, gy, gz, bx, by, bz);
        return call.fails(CUDA_ERROR_INVALID_VALUE, "no such grid");
    }
    Work work = kernel->prepare(arguments, {gx, gy, gz}, {bx, by, bz});
    work.run = [module = ((Function *)handle)->module, run = std::move(work.run), kernel] {
        if (!module->loaded) die("kernel %s runs after its module was unloaded", kernel->name);
        run();
    };
    return push(call, stream, std::move(work));
}

}  // extern "C"
