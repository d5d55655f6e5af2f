#!/usr/bin/env bash
# Runs the unit under systemd itself, which is started as process 1 of namespaces of its own: kith starts with all that the unit forbids, learns, answers,
# and stops when systemd says so. Usage: unit.sh KITH. Needs root, cgroup 2 and mmdebstrap (Debian's packages have it); takes a minute.
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
source_root=$here/../..
kith=$(realpath "$1")
work=$(mktemp -d)
root=$work/root
cgroup=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)/kith-unit-$$
manager='' init=''
trap clean_up EXIT

clean_up() {
    [ -z "$init" ] || shut_down
    wait
    find "$cgroup" -depth -type d -exec rmdir {} + || true
    rm -rf "$work"
}

# Asks systemd to, which takes a moment, and ends it at once when it does not.
shut_down() {
    kill -RTMIN+3 "$init"
    timeout 20 tail --pid="$init" --follow /dev/null || kill -9 "$init"
}

fail() {
    echo "unit: $*" >&2
    inside journalctl --no-pager --lines 40 >&2 || true
    exit 1
}

inside() { # COMMAND...
    nsenter --target "$init" --mount --pid --net --uts --ipc --cgroup --root --wd -- env -i PATH=/usr/local/bin:/usr/bin:/bin "$@"
}

property() { # NAME
    inside systemctl show kith --property "$1" --value
}

install_kith() {
    install "$kith" "$root/usr/local/bin/kith"
    install -m 0644 "$here/../systemd/kith.service" "$root/etc/systemd/system/"
    install -D -m 0644 "$here/../systemd/kith.sysusers" "$root/usr/lib/sysusers.d/kith.conf"
    install -D -m 0644 "$source_root/config/production.toml" "$root/etc/kith/kith.toml"
    printf 'KITH_%s\n' ENCODER__WIDTH=8 ENCODER__SIDE=32 ENCODER__DIM=16 TRAINING__MIN_PAIRS=2 PAIRS__HOLDOUT_SHARE=0 >"$root/etc/kith/kith.env"
    chroot "$root" systemctl enable --quiet kith
}

# Its mounts, host name, network and control groups are its own.
boot() {
    mkdir "$cgroup"
    (
        echo "$BASHPID" >"$cgroup/cgroup.procs"
        cd "$root"
        # shellcheck disable=SC2016
        exec unshare --mount --pid --net --uts --ipc --cgroup --fork --propagation private bash -ec '
            ip link set lo up
            hostname kith
            mount --bind "$PWD" "$PWD"
            cd "$PWD"
            mount -t proc proc proc
            mount -t tmpfs tmpfs run
            mount -t sysfs -o ro sysfs sys
            mount -t cgroup2 cgroup2 sys/fs/cgroup
            mount -t tmpfs -o mode=755 tmpfs dev
            mkdir dev/pts dev/shm old
            mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
            ln -s pts/ptmx dev/ptmx
            for device in null zero full random urandom tty; do
                touch "dev/$device"
                mount --bind "/dev/$device" "dev/$device"
            done
            pivot_root . old
            umount -l old
            exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --unit=multi-user.target'
    ) </dev/null >"$work/boot" 2>&1 &
    manager=$!
    for _ in $(seq 300); do
        init=$(pgrep -P "$manager" || true)
        if [ -n "$init" ] && inside kith health --ready >"$work/health" 2>&1; then return; fi
        kill -0 "$manager" || { cat "$work/boot"; exit 1; }
        sleep 0.1
    done
    fail "not ready: $(cat "$work/health")"
}

mmdebstrap --quiet --variant=apt --include=libgcc-s1,systemd,systemd-sysv bookworm "$root" 2>/dev/null
install_kith
boot
mkdir "$work/images"
python3 "$source_root/tests/images.py" "$work/images" 8 "$work/large.png"
request=(nsenter --target "$init" --net -- curl -sS --fail-with-body)
for image in "$work"/images/*; do
    "${request[@]}" http://127.0.0.1:7700/v1/pairs -F anchor=@"$image" >"$work/answer" || fail "$(cat "$work/answer")"
done
for _ in $(seq 300); do
    step=$("${request[@]}" http://127.0.0.1:7700/v1/training | python3 -c 'import json, sys; print(json.load(sys.stdin)["step"])')
    [ "$step" -lt 2 ] || break
    sleep 0.1
done
[ "$step" -ge 2 ] || fail "it does not learn"
main=$(property MainPID)
for line in 'CapEff:\t0+' 'NoNewPrivs:\t1' 'Seccomp:\t2'; do
    inside grep -qP "^$line\$" "/proc/$main/status" || fail "not confined: $line"
done
inside systemctl stop kith
[ "$(property Result) $(property ExecMainStatus)" = "success 0" ] || fail "it did not stop as it should"
[ "$(inside stat -c '%U %a' /var/lib/kith)" = "kith 700" ] || fail "others may read /var/lib/kith"
echo "unit: started, learned $step steps and stopped under $(inside systemctl --version | head -n 1), confined"
