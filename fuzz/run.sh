#!/usr/bin/env bash
# Fuzzes each target for so many seconds, JOBS of them at once (2 unless set): fuzz/run.sh SECONDS [TARGET…]
# Fails if an input broke one. Such inputs lie in fuzz/artifacts/TARGET, new ones that reach other code in fuzz/found/TARGET.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:?seconds for each target}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(corpus/*)

# cargo-fuzz sets flags that only an unstable compiler takes by itself.
RUSTC_BOOTSTRAP=1 cargo fuzz build --sanitizer none --fuzz-dir .

# Servers store what they are sent; in memory that costs no write to a disk.
work=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/kith-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT

fuzz() { # TARGET
    local target=$1 program
    program=target/$(rustc -vV | sed -n 's/^host: //p')/release/$target
    mkdir -p "found/$target" "artifacts/$target" "$work/$target"
    # libFuzzer looks at resident memory once a second; the limit of addresses ends an allocation at once that is far too large.
    ulimit -v $((4 << 20))
    if TMPDIR=$work/$target "$program" "found/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" \
        -max_len=16384 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 -print_final_stats=1 >"found/$target.log" 2>&1; then
        echo "$target: clean, $(sed -n 's/^stat::number_of_executed_units: *//p' "found/$target.log") inputs"
    else
        echo "$target: BROKEN, see fuzz/found/$target.log"
        return 1
    fi
}
export -f fuzz
export seconds work

printf '%s\n' "${targets[@]##*/}" | xargs -P "${JOBS:-2}" -I{} bash -euo pipefail -c 'fuzz {}'
