#!/usr/bin/env bash
# All measurements on an NVIDIA GPU in the order of their value, for a machine that is lent for minutes: each part has its time, a part that
# fails or runs out of it does not end the rest, and all that is printed is kept.
#
#     OUT=folder KITH=path/of/kith TESTS=path/of/the/tests' binary benches/gpu_session.sh [part ...]
#
# KITH and TESTS are built with `--features cuda` (TESTS: `cargo test --release --features cuda --no-run --test all`). Parts: info tests
# forward train trace compile server soak. Without any, all. PyTorch must be there (docs/cuda.md), in its folders are the libraries too.
# SCALE=small takes tiny networks and moments, to try the script itself.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${OUT:?a folder for what is found} KITH=${KITH:-target/release/kith} TESTS=${TESTS:-}
DEVICE=${DEVICE:-cuda:0} PYTHON=${PYTHON:-python3} SCALE=${SCALE:-full}
mkdir -p "$OUT"
LOG=$OUT/session.log
SITE=$($PYTHON -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
export LD_LIBRARY_PATH=$SITE/nvidia/cu13/lib:$SITE/nvidia/cudnn/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} PYTHONUNBUFFERED=1

say() { echo "$@" | tee -a "$LOG"; }

# part NAME SECONDS COMMAND...: runs it for at most so long.
part() {
    local name=$1 seconds=$2 began=$SECONDS
    shift 2
    say "=== $name: $*"
    timeout --kill-after=5 "$seconds" "$@" >> "$LOG" 2>&1
    say "=== $name: ended with $? after $((SECONDS - began)) s"
}

if [ "$SCALE" = small ]; then
    FORWARD="--sides 32 --batches 1,8 --rounds 1 --seconds 0.05" STEPS="--pairs 4 --rounds 1 --seconds 0.05 --steps 3 --train-side 32"
    CELLS="32:1" CELL="32:1" TRACED="1 8" SIDE=32 PAIRS="4" SECONDS_EACH=1 MINUTES=0.2 TINY="--set encoder.width=8 --set encoder.side=32"
else
    FORWARD="--rounds 2 --seconds 0.3" STEPS="--rounds 1 --seconds 1.5 --steps 120"
    CELLS="96:64,96:1,96:256,96:1024,224:64" CELL="96:64" TRACED="1 64 256 1024" SIDE=96 PAIRS="32 128" SECONDS_EACH=4 MINUTES=0.75 TINY=""
fi

info() {
    part info 20 bash -c "nvidia-smi; nproc; $PYTHON -c 'import torch; print(torch.__version__, torch.backends.cudnn.version())'"
    part copies 30 $PYTHON - <<'PYTHON'
import time, torch
if torch.cuda.is_available():
    for name, host in (("pinned", torch.rand(64 << 20).pin_memory()), ("pageable", torch.rand(64 << 20))):
        there = torch.empty(64 << 20, device="cuda")
        for _ in range(5):
            torch.cuda.synchronize(); start = time.perf_counter()
            there.copy_(host, non_blocking=True); torch.cuda.synchronize()
            taken = time.perf_counter() - start
        print(f"to the GPU from {name} memory: {(256 << 20) / taken / 1e9:.1f} GB/s")
PYTHON
}

tests() {
    [ -n "$TESTS" ] && part tests 100 "$TESTS" --ignored cuda --nocapture --test-threads 1
}

forward() { part forward 90 $PYTHON benches/gpu.py --kith "$KITH" --device "$DEVICE" --only forward $FORWARD --json "$OUT/forward.json"; }

train() { part train 110 $PYTHON benches/gpu.py --kith "$KITH" --device "$DEVICE" --only train $STEPS --json "$OUT/train.json"; }

trace() {
    local trace="$PYTHON benches/gpu_trace.py ${LIBRARY:+--library $LIBRARY} --events 130 --tail 0.3 --"
    for batch in $TRACED; do
        part "trace of $batch images" 25 $trace "$KITH" bench --only forward --side "$SIDE" --batch "$batch" --threads "$(nproc)" --rounds 1 --seconds 0.2 $TINY --set "encoder.device=$DEVICE"
    done
    for pairs in $PAIRS; do
        part "trace of steps of $pairs pairs" 25 $trace "$KITH" bench --only train --side "$SIDE" --batch "$pairs" --threads "$(nproc)" --rounds 1 --seconds 0.4 $TINY --set "encoder.device=$DEVICE"
    done
}

compile() {
    local run="$PYTHON benches/gpu.py --kith $KITH --device $DEVICE --only compile --rounds 2 --seconds 0.3"
    part "compile, CUDA graphs" "${COMPILE_SECONDS:-120}" $run --compile-mode reduce-overhead --compile "$CELLS" --json "$OUT/compile.json"
    # Some ten seconds for each shape of a convolution.
    part "compile, autotuned" "${AUTOTUNE_SECONDS:-240}" $run --compile-mode max-autotune --compile "$CELL" --json "$OUT/autotuned.json"
}

SERVER="--set encoder.device=$DEVICE --set serving.max_batch=256 --set training.loader_threads=8 $TINY"

server() { part server 90 $PYTHON benches/throughput.py --kith "$KITH" --seconds "$SECONDS_EACH" --threads 16 $SERVER --out "$OUT/server.json"; }

soak() { part soak 90 $PYTHON benches/soak.py --kith "$KITH" --minutes "$MINUTES" --threads 4 --every 0.02 $SERVER --out "$OUT/soak.json"; }

for name in ${@:-info tests forward train trace compile server soak}; do "$name"; done
