#!/usr/bin/env bash
# Builds the image's last stage of packaging/Dockerfile without an engine, measures it and runs it with container.sh. In
# place of the base image stand the same packages from Debian; in place of the build stage stands KITH, stripped as there.
# Usage: image.sh KITH [LIMIT_MB]. Needs root, buildah and mmdebstrap (Debian's packages have both).
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
root=$here/../..
kith=$(realpath "$1")
limit=${2:-120}
work=$(mktemp -d)
containers=()
# Storage of its own, which leaves nothing behind.
buildah=(buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs)
trap clean_up EXIT

clean_up() {
    [ ${#containers[@]} = 0 ] || "${buildah[@]}" umount "${containers[@]}" >/dev/null || true
    rm -rf "$work"
}

# The packages of distroless' cc-debian12.
mmdebstrap --quiet --variant=extract --include=base-files,ca-certificates,libc6,libgcc-s1,libgomp1,libssl3,libstdc++6,media-types,netbase,tzdata \
    bookworm "$work/base.tar"
base=$("${buildah[@]}" from scratch)
"${buildah[@]}" add --quiet "$base" "$work/base.tar" / >/dev/null
"${buildah[@]}" commit --quiet "$base" localhost/base >/dev/null

install -D --strip "$kith" "$work/build/image/usr/local/bin/kith"
install -D --mode=0644 "$root/LICENSE" "$work/build/image/usr/share/doc/kith/LICENSE"
install --directory --mode=0700 --owner=10001 --group=10001 "$work/build/image/data"
# The last stage alone: those before it need their base images.
{ grep '^ARG RUN_IMAGE' "$here/../Dockerfile" && sed -n '/^FROM .* AS run$/,$p' "$here/../Dockerfile"; } >"$work/Dockerfile"
"${buildah[@]}" build --quiet --format docker --pull-never --build-arg RUN_IMAGE=localhost/base --build-context build="$work/build" \
    --file "$work/Dockerfile" --tag localhost/kith "$work/build" >/dev/null

image=$("${buildah[@]}" from --pull-never localhost/kith)
containers+=("$image")
mounted=$("${buildah[@]}" mount "$image")
megabytes=$(($(du --summarize --apparent-size --block-size=1 "$mounted" | cut -f1) / 1000000))
"${buildah[@]}" inspect --type image localhost/kith | python3 -c '
import json, sys
config = json.load(sys.stdin)["Docker"]["config"]
assert config["User"] == "10001:10001", config["User"]
assert config["StopSignal"] == "SIGTERM", config
assert config["Healthcheck"]["Test"][:2] == ["CMD", "kith"], config
assert list(config["Volumes"]) == ["/data"] and list(config["ExposedPorts"]) == ["7700/tcp"], config
'
[ "$(stat -c '%u %a' "$mounted/data")" = "10001 700" ] || { echo "image: /data is not the user's" >&2; exit 1; }
echo "image: $megabytes MB, $(($(stat -c %s "$mounted/usr/local/bin/kith") / 1000000)) MB of them kith"
[ "$megabytes" -le "$limit" ] || { echo "image: more than $limit MB" >&2; exit 1; }
mkdir -p "$mounted"/{dev,proc}
"$here/container.sh" "$kith" "$mounted"
