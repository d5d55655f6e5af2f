#!/usr/bin/env bash
# Builds the stand-in: lib/libstandin.so and a link to it for each library's name, below the project's target folder.
# Usage: build.sh [folder of kernels.cu] [output folder]. Needs g++ 12 on x86-64, cuda.h, and cudarc's sources, which list all names that a
# program may want. From the environment: CUDA_INCLUDE or CUDA_HOME, CUDARC, OUT (README.md).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROJECT=$HERE/../../../../..
KERNELS=${1:-$PROJECT/crates/kith-nn/src/cuda}
OUT=${2:-${OUT:-$PROJECT/target/standin}}

CUDA_INCLUDE=${CUDA_INCLUDE:-${CUDA_HOME:-}/include}
if [ ! -f "$CUDA_INCLUDE/cuda.h" ]; then
    echo "no cuda.h in '$CUDA_INCLUDE': set CUDA_INCLUDE to its folder, or CUDA_HOME to the toolkit's" >&2
    exit 1
fi
if [ -z "${CUDARC:-}" ]; then
    packages=$(cargo metadata --manifest-path "$PROJECT/Cargo.toml" --format-version 1 --features cuda --offline --locked 2>/dev/null || true)
    CUDARC=$(grep -oP '"manifest_path":"\K[^"]*/cudarc-[^"/]*(?=/Cargo.toml")' <<< "$packages" | head -1) ||
        CUDARC=$(printf '%s\n' "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-* | sort -V | tail -1)
fi
if [ ! -d "$CUDARC/src/driver/sys" ]; then
    echo "no sources of cudarc in '$CUDARC': run cargo fetch, or set CUDARC to their folder" >&2
    exit 1
fi

CUDA_INCLUDE=$(cd "$CUDA_INCLUDE" && pwd)
CUDARC=$(cd "$CUDARC" && pwd)
mkdir -p "$OUT/build" "$OUT/lib"
cp "$KERNELS/kernels.cu" "$OUT/build"
cd "$OUT/build"
rm -f ./*.o
sed 's/extern "C" __global__ /static /' kernels.cu > kernels.inc
grep -oP 'extern "C" __global__ void (__launch_bounds__\([^)]*\) *)?\K\w+' kernels.cu | sed 's/.*/KERNEL(&)/' > names.inc

# A fallback for each name that is not defined otherwise.
{
    echo 'void standin_missing(const char *);'
    {
        grep -rhoP '^ {12}fn \K\w+' "$CUDARC"/src/{driver,nvrtc,curand,cublas,cudnn}/sys
        printf '%s\n' cudaFuncSetAttribute cudaGetDevice
        printf '__cuda%s\n' GetKernel LaunchKernel LaunchKernel_ptsz PopCallConfiguration PushCallConfiguration
    } | sort -u | sed 's/.*/__attribute__((weak)) void &(void) { standin_missing("&"); }/'
} > fallbacks.c
gcc -w -fno-builtin -fPIC -c fallbacks.c

# Each line: what one run of the compiler is told besides.
{
    for part in arithmetic blocks copies cublas cudnn driver graphs memory modules others streams; do echo "'$HERE/$part.cpp'"; done
    for half in 0 1; do echo "-DHALF=$half -Wno-unused-function -o kernels$half.o '$HERE/kernels.cpp'"; done
} | xargs -P "$(nproc)" -L 1 g++ -c -std=c++20 -O3 -march=native -fPIC -g1 -Wall -I. -I"$CUDA_INCLUDE"

# Programs ask for the runtime's names by version.
echo 'libcudart.so.13 { cuda*; __cuda*; };' > versions
g++ -shared -Wl,-soname,libstandin.so -Wl,--version-script,versions -o ../lib/libstandin.so ./*.o
for name in cuda.so.1 nvrtc.so.13 curand.so.10 cublas.so.13 cublasLt.so.13 cudnn.so.9 cudart.so.13; do
    ln -sfn libstandin.so "../lib/lib$name"
done
