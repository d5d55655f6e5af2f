#!/usr/bin/env bash
# Builds and runs selftest.cpp against what build.sh made. Usage: selftest.sh; OUT and CUDA_INCLUDE or CUDA_HOME as for build.sh.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=$(cd "${OUT:-$HERE/../../../../../target/standin}" && pwd)
g++ -std=c++20 -O1 -g -Wall -I"${CUDA_INCLUDE:-${CUDA_HOME:-}/include}" "$HERE/selftest.cpp" "$OUT/lib/libcuda.so.1" -Wl,-rpath,"$OUT/lib" \
    -o "$OUT/build/selftest"
"$OUT/build/selftest" "$OUT/build/kernels.cu"
