#!/usr/bin/env bash
# Tests the built server through the clients that its users have: OpenAI's and Cohere's in Python and JavaScript, LangChain, LiteLLM, LlamaIndex,
# and the page /docs in Chromium. Usage: tests/clients/run.sh [KITH]. Needs python3 with venv and PyPI, npm, and chromium: the program
# in CHROMIUM, or that of PATH.
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kith=$(realpath "${1:-$here/../../target/debug/kith}")
cd "$here"

work=$(mktemp -d)
servers=()
trap '[ ${#servers[@]} = 0 ] || kill "${servers[@]}" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

venv=$here/../../target/clients-venv
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
if ! cmp -s requirements.txt "$venv/installed.txt"; then
    "$venv/bin/pip" install --quiet --requirement requirements.txt
    cp requirements.txt "$venv/installed.txt"
fi
# The clients need a newer Node than some systems have; it is one of the packages. The browser is the system's.
if ! cmp -s package-lock.json node_modules/installed.json; then
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --silent --no-fund --no-audit
    cp package-lock.json node_modules/installed.json
fi
node=$(echo node_modules/node-linux-*/bin/node)
export CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}
started=$SECONDS

export KITH_IMAGES=$work/images KITH_LARGE_IMAGE=$work/large.png
mkdir "$KITH_IMAGES"
python3 ../images.py "$KITH_IMAGES" 5 "$KITH_LARGE_IMAGE"

create_key() { # FOLDER NAME
    "$kith" key create --data-dir "$work/$1" --name "$2" --scope embed --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])'
}

# Sets `url` to that of a server in FOLDER with further settings.
start() { # FOLDER [SETTING...]
    local folder=$1 port settings
    shift
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    url=http://127.0.0.1:$port
    settings=(encoder.width=8 encoder.side=32 encoder.dim=16 training.enabled=false log.filter=warn "storage.data_dir=$work/$folder" "server.listen=127.0.0.1:$port" "$@")
    "$kith" serve "${settings[@]/#/--set=}" >"$work/$folder.log" 2>&1 &
    servers+=($!)
    for _ in $(seq 300); do
        curl -sf "$url/readyz" >/dev/null && return
        sleep 0.1
    done
    cat "$work/$folder.log"
    return 1
}

KITH_KEY=$(create_key open clients)
KITH_LIMITED_KEYS={}
for name in openai cohere litellm openai-js cohere-js; do
    KITH_LIMITED_KEYS=$(python3 -c 'import json, sys; print(json.dumps({**json.loads(sys.argv[1]), sys.argv[2]: sys.argv[3]}))' "$KITH_LIMITED_KEYS" $name "$(create_key limited $name)")
done
start open server.max_body_bytes=262144
KITH_URL=$url
start limited keys.requests_per_minute=20 keys.bytes_per_day=400000
KITH_LIMITED_URL=$url
export KITH_KEY KITH_LIMITED_KEYS KITH_URL KITH_LIMITED_URL

# Both at once: most of their time they wait.
timeout 300 "$venv/bin/python" -m pytest --quiet --disable-warnings -p no:cacheprovider . >"$work/python" 2>&1 &
python=$!
status=0
timeout 300 "$node" --test --test-concurrency=1 --test-reporter=spec || status=$?
wait "$python" || status=$?
cat "$work/python"
for server in "${servers[@]}"; do
    kill -0 "$server" || { cat "$work"/*.log; status=1; }
done
if grep panic "$work"/*.log; then status=1; fi
echo "clients: status $status, $((SECONDS - started)) s beside installing"
exit "$status"
