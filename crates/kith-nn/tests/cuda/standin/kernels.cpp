// kernels.cu as C++, compiled once for each HALF. build.sh writes kernels.inc, which is kernels.cu with its kernels made static, and
// names.inc, a line KERNEL(name) for each of them.

#include "blocks.h"

namespace standin {
namespace {
#include "kernels.inc"
}

#if HALF
#define TABLE kernels_half
#else
#define TABLE kernels_float
asm(".section .rodata\nstandin_source: .incbin \"kernels.cu\"\nstandin_source_end:\n.text");
extern "C" __attribute__((visibility("hidden"))) const char standin_source[], standin_source_end[];
extern const std::string kernels_source(standin_source, standin_source_end);
#endif
#define KERNEL(name) {#name, [](void **arguments, Dim grid, Dim block) { return Launch<&name>::prepare(#name, arguments, grid, block); }},

extern const std::vector<Kernel> TABLE = {
#include "names.inc"
};

}  // namespace standin
