#!/usr/bin/env bash
# Runs kith as the image does, without an engine: in a root file system of its own, mounted read-only but for /data, as process 1 of a user without
# a name and without capabilities. Checks health, that a pair survives SIGTERM and a new start, and that the first key closes the server.
# Usage: container.sh KITH [ROOT]. ROOT is the root file system of an image; left out, it is made of KITH and the libraries that it is linked to.
# Must be root.
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kith=$(realpath "$1")
work=$(mktemp -d)
container='' inside=''
trap clean_up EXIT

clean_up() {
    # A process that changed its user does not die with its parent.
    [ -z "$container" ] || kill -9 ${inside:+"$inside"} "$container" 2>/dev/null || true
    wait
    rm -rf "$work"
}

fail() {
    echo "container: $*" >&2
    cat "$work/log" >&2
    exit 1
}

# A root file system like that of the base image and the files that the Dockerfile adds.
make_root() {
    local file
    root=$work/root
    install -D "$kith" "$root/usr/local/bin/kith"
    for file in $(ldd "$kith" | grep -o '/[^ ]*'); do
        install -D "$file" "$root$file"
    done
    mkdir -p "$root"/{data,dev,proc,sys,tmp}
}

# A word list of the Dockerfile: of HEALTHCHECK, ENTRYPOINT or CMD.
words() { # INSTRUCTION
    python3 -c 'import json, re, sys
print("\n".join(json.loads(re.search(rf"^{sys.argv[2]} .*?(\[.*\])$", open(sys.argv[1]).read(), re.M)[1])))' "$here/../Dockerfile" "$1"
}

# Starts the container with a command and waits until it is ready. Sets `container` to the process outside and `inside` to the one that is 1 inside.
start() { # COMMAND...
    # A network of its own, so that the port of the image is free.
    # shellcheck disable=SC2016
    ROOT=$root DATA=$work/data unshare --mount --pid --net --fork --kill-child --propagation private bash -c '
        ip link set lo up
        mount --bind "$ROOT" "$ROOT"
        mount --bind "$DATA" "$ROOT/data"
        mount -t tmpfs -o mode=755 tmpfs "$ROOT/dev"
        for device in null random urandom zero; do
            touch "$ROOT/dev/$device"
            mount --bind "/dev/$device" "$ROOT/dev/$device"
        done
        mount -t proc proc "$ROOT/proc"
        mount -o remount,bind,ro "$ROOT"
        exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ${LISTEN:+KITH_SERVER__LISTEN=$LISTEN} setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
            chroot --userspec=10001:10001 --groups= "$ROOT" "$@"' - "$@" >"$work/log" 2>&1 &
    container=$!
    for _ in $(seq 300); do
        inside=$(pgrep -P "$container" || true)
        if [ -n "$inside" ] && in_container kith health --ready >"$work/health" 2>&1; then return; fi
        kill -0 "$container" || fail "it ended"
        sleep 0.1
    done
    fail "not ready: $(cat "$work/health")"
}

# Runs a program of the container, as `docker exec` does.
in_container() { # COMMAND...
    env -i PATH=/usr/local/bin:/usr/bin:/bin nsenter --target "$inside" --mount --pid --net --root --wd --setuid 10001 --setgid 10001 -- "$@"
}

request() { # PATH [OPTION...]
    local path=$1
    shift
    nsenter --target "$inside" --net -- curl -sS "http://127.0.0.1:7700$path" "$@"
}

# A field of the answer that is read.
field() { # EXPRESSION
    python3 -c "import json, sys; print(json.load(sys.stdin)$1)"
}

stop() {
    local status=0
    kill -TERM "$inside"
    wait "$container" || status=$?
    container=''
    [ "$status" = 0 ] || fail "SIGTERM ended it with status $status"
}

# What the kernel says of process 1: user, capabilities, privileges, and which mounts it may write to.
check_confinement() {
    local writable
    grep -qP '^Uid:\t10001\t10001\t10001' "/proc/$inside/status" || fail "it is not user 10001"
    grep -qP '^CapEff:\t0+$' "/proc/$inside/status" || fail "it has capabilities"
    grep -qP '^NoNewPrivs:\t1$' "/proc/$inside/status" || fail "it may gain privileges"
    grep -qP '^NSpid:\t\d+\t1$' "/proc/$inside/status" || fail "it is not process 1"
    writable=$(awk '$6 ~ /^rw/ && $5 !~ /^\/(dev|proc)/ {print $5}' "/proc/$inside/mountinfo")
    [ "$writable" = /data ] || fail "it may write to $writable"
}

if [ $# -gt 1 ]; then root=$(realpath "$2"); else make_root; fi
mkdir "$work/data" "$work/images"
# As the root of a new volume is.
mkdir -m 0700 "$work/data/lost+found"
chown 10001:10001 "$work/data"
chmod 0700 "$work/data"
python3 "$here/../../tests/images.py" "$work/images" 2 "$work/large.png"
mapfile -t serve < <(words ENTRYPOINT && words CMD)
mapfile -t health < <(words HEALTHCHECK)
# What is checked does not depend on the encoder's size.
small=(--set encoder.width=8 --set encoder.side=32 --set encoder.dim=16)

start "${serve[@]}" "${small[@]}"
check_confinement
[ "$(in_container "${health[@]}")" = ok ] || fail "unhealthy"
pair=$(request /v1/pairs -F anchor=@"$work/images/0.png" -F positive=@"$work/images/1.png" | field '["data"][0]["id"]')
model=$(request /v1/embeddings -H 'content-type: image/png' --data-binary @"$work/images/0.png" | field '["model"]')
stop
grep -q stopped "$work/log" || fail "it did not say that it stopped"
if grep -q WARN "$work/log"; then fail "it warns"; fi

start "${serve[@]}" "${small[@]}"
[ "$(request "/v1/pairs/$pair" | field '["id"]')" = "$pair" ] || fail "the pair is gone"
[ "$(request /v1/models | field '["data"][0]["checkpoint"]')" = "${model#kith@}" ] || fail "another checkpoint serves"
secret=$(in_container kith key create --data-dir /data --name ops --scope admin --json | field '["key"]')
stop

# As Kubernetes starts it: every address, not insecure, since there is a key.
LISTEN=0.0.0.0:7700 start kith serve --data-dir /data "${small[@]}"
status=$(request /v1/models -o /dev/null -w '%{http_code}')
[ "$status" = 401 ] || fail "without a key it answers $status"
status=$(request /v1/models -H "authorization: Bearer $secret" -o /dev/null -w '%{http_code}')
[ "$status" = 200 ] || fail "with a key it answers $status"
in_container "${health[@]}" >/dev/null || fail "health needs a key"
stop
echo "container: read-only root, user 10001, no capabilities; health, SIGTERM, data and the first key are right; $(du -sh "$root" --apparent-size | cut -f1) of files"
