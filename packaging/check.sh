#!/usr/bin/env bash
# Checks what runs kith: linters and schemas for each file of this folder, then the program as the image runs it (check/container.sh).
# Usage: packaging/check.sh [KITH]. Needs python3 with venv and PyPI; root for the program; systemd-analyze for the unit, which is else left out.
# packaging/check/image.sh builds and measures the image.
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kith=$(realpath -m "${1:-$here/../target/debug/kith}")
# The most that `systemd-analyze security` may find exposed, of 10.
exposure=15
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$here/check"
# shellcheck source=../tests/server.sh
source ../../tests/server.sh
install_python packaging
end_if_installing
cd "$here"
PATH=$venv/bin:$PATH
started=$SECONDS

check_unit() {
    local unit=systemd/kith.service
    if ! command -v systemd-analyze >/dev/null; then
        echo "systemd: not checked, as there is no systemd-analyze"
        return
    fi
    # The program that the unit names must exist.
    sed "s#/usr/local/bin/kith#$kith#" "$unit" >"$work/kith.service"
    # It only warns of what it does not understand.
    systemd-analyze verify "$work/kith.service" 2>&1 | tee "$work/unit"
    [ ! -s "$work/unit" ]
    systemd-analyze security --offline=true --threshold=$exposure "$work/kith.service" | tail -n 1
}

# The image's build sees what .dockerignore lets through: every member of the workspace, and every file that the program was built from, as cargo
# wrote them down beside it.
check_build_context() {
    local root file files
    mkdir "$work/context"
    (cd .. && sed -n 's/^!//p' .dockerignore | xargs tar --create --exclude target) | tar --extract --directory "$work/context"
    cargo metadata --quiet --no-deps --offline --format-version 1 --manifest-path "$work/context/Cargo.toml" >/dev/null
    [ -e "$kith.d" ] || { echo "build context: $kith was not built here, so that its files are not known"; return; }
    root=${kith%/target/*}
    read -ra files < <(sed 's/^[^:]*://' "$kith.d")
    for file in "${files[@]}"; do
        # A file that was removed since is no matter.
        [ ! -e "$file" ] || [ -e "$work/context/${file#"$root"/}" ] || { echo "build context: .dockerignore leaves out ${file#"$root"/}" >&2; return 1; }
    done
}

hadolint Dockerfile
shellcheck --external-sources --source-path=check --exclude=SC1091 check.sh check/*.sh
check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
python3 check/charts.py
check_unit
check_build_context
check/container.sh "$kith"
echo "packaging: $((SECONDS - started)) s beside installing"
