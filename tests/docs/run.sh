#!/usr/bin/env bash
# Runs every code block of README.md and docs/ against the built server, compares what the pages show with what is printed, builds the book and checks
# its links. Usage: tests/docs/run.sh [KITH [PAGE...]]. Needs python3 with venv and PyPI, npm, jq, curl, and leave to unshare (root, or user namespaces).
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kith=$(realpath -m "${1:-$here/../../target/debug/kith}")
pages=("${@:2}")
root=$(realpath "$here/../..")
[ ${#pages[@]} -gt 0 ] || pages=("$root"/README.md "$root"/docs/*.md)
mapfile -t pages < <(realpath "${pages[@]}")
cd "$here"

work=$(mktemp -d)
source ../server.sh
trap 'rm -rf "$work"' EXIT
install_python docs
cd ../clients && install_node && cd ../docs
end_if_installing
started=$SECONDS

# A page in a network and among processes of its own, with a small encoder. The shell stays, to wait for servers whose parents have ended.
run_page() { # PAGE
    local folder own=(--map-root-user)
    [ "$(id -u)" != 0 ] || own=()
    folder=$work/$(basename "$1")
    mkdir -p "$folder/work" "$folder/state"
    env -i HOME="$folder/work" CURL_HOME="$folder/work" DOCS_STATE="$folder/state" KITH_PROGRAM="$kith" TERM=dumb LANG=C.UTF-8 \
        PATH="$here/bin:$venv/bin:$node_folder:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" PYTHONDONTWRITEBYTECODE=1 \
        KITH_ENCODER__WIDTH=8 KITH_ENCODER__SIDE=32 KITH_TRAINING__MIN_PAIRS=2 KITH_TRAINING__IDLE_CLASS=false KITH_LOG__FILTER=warn \
        unshare "${own[@]}" --net --pid --mount --fork --kill-child --mount-proc \
        bash -ec 'ip link set lo up; timeout 240 python3 run_page.py "$@" || exit' - "$1" "$folder/work"
}

"$venv/bin/mdlinkcheck" --quiet "$root/docs" "$root"/*.md "$root/packaging"
"$venv/bin/mdbook" build "$root/docs" --dest-dir "$root/target/book"
"$venv/bin/python" -m unittest --quiet test_page
# Side by side: most of their time they wait.
export -f run_page
export here kith node_folder venv work
printf '%s\0' "${pages[@]}" | xargs --null --max-args=1 --max-procs="$(nproc)" bash -euc 'run_page "$1"' - | tee "$work/results"
awk -v seconds=$((SECONDS - started)) '/ ran, / { ran += $2; outputs += $4; not_run += $6 }
    END { print "docs: " ran " blocks ran, " outputs " outputs are as shown, " not_run " did not run; " seconds " s beside installing" }' "$work/results"
