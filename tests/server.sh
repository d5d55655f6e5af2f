# Functions of the scripts that test a built server: contract/run.sh, clients/run.sh and recipes/run.sh, which source this. They set `kith`, the program,
# and `work`, a folder of their own that `clean_up` removes. docs/run.sh and packaging/check.sh install by it, too.

servers=()
# A tiny encoder; each server adds to it.
# Whatever else keeps the machine busy, it learns: clients wait for steps.
tiny=(encoder.width=8 encoder.side=32 encoder.dim=16 training.idle_class=false log.filter=warn)

# Also tells what the servers said, if the script has failed.
clean_up() {
    local status=$?
    [ "$status" = 0 ] || tail -n 200 "$work"/*.log || true
    [ ${#servers[@]} = 0 ] || kill "${servers[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}

# Installs requirements.txt of this folder into a virtual environment, once for each content of it and of further files, and sets `venv` to it.
install_python() { # NAME [FILE...]
    venv=$(realpath -m "../../target/$1-venv")
    shift
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
    if ! cat requirements.txt "$@" | cmp -s - "$venv/installed.txt"; then
        "$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --requirement requirements.txt
        cat requirements.txt "$@" >"$venv/installed.txt"
    fi
}

# Installs the packages of this folder's package-lock.json, once for each content, and sets `node_folder` to that of Node: the clients need a newer one
# than some systems have, so that it is one of the packages.
install_node() {
    if ! cmp -s package-lock.json node_modules/installed.json; then
        PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --silent --no-fund --no-audit
        cp package-lock.json node_modules/installed.json
    fi
    node_folder=$(realpath node_modules/node-linux-*/bin)
}

# With INSTALL_ONLY set a script ends here: .ci/run has them install while the compiler works.
end_if_installing() {
    [ -z "${INSTALL_ONLY:-}" ] || exit 0
}

# Prints a new key of the data folder $work/FOLDER.
create_key() { # FOLDER NAME SCOPE
    "$kith" key create --data-dir "$work/$1" --name "$2" --scope "$3" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])'
}

# Starts a server on $work/FOLDER with further settings, waits until it is ready, and sets `url` to its address.
start() { # FOLDER [SETTING...]
    local folder=$1 port settings
    shift
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port
    settings=("${tiny[@]}" "storage.data_dir=$work/$folder" "server.listen=127.0.0.1:$port" "$@")
    "$kith" serve "${settings[@]/#/--set=}" >"$work/$folder.log" 2>&1 &
    servers+=($!)
    for _ in $(seq 300); do
        curl -sf "$url/readyz" >/dev/null && return
        sleep 0.1
    done
    return 1
}

# Fails if a server has ended or panicked.
all_run() {
    local server
    for server in "${servers[@]}"; do
        kill -0 "$server" || return 1
    done
    ! grep panic "$work"/*.log
}
