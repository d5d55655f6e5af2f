#!/usr/bin/env bash
# Runs a program with the stand-in in place of CUDA. Usage: run.sh program arguments...; OUT is where build.sh put it.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=$(cd "${OUT:-$HERE/../../../../../target/standin}" && pwd)
export LD_LIBRARY_PATH="$OUT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$@"
