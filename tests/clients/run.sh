#!/usr/bin/env bash
# Tests the built server through the clients that its users have: kith's own package (clients/python), OpenAI's and Cohere's in Python and JavaScript,
# LangChain, LiteLLM, LlamaIndex, and the pages / and /docs in Chromium. Usage: tests/clients/run.sh [KITH]. Needs python3 with venv and PyPI, npm, and chromium: the program
# in CHROMIUM, or that of PATH.
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kith=$(realpath -m "${1:-$here/../../target/debug/kith}")
cd "$here"

work=$(mktemp -d)
source ../server.sh
trap clean_up EXIT
package=$(realpath ../../clients/python)
install_python clients "$package/pyproject.toml"
install_node
end_if_installing
node=$node_folder/node
# The browser is the system's.
export CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}
started=$SECONDS

export KITH_IMAGES=$work/images KITH_LARGE_IMAGE=$work/large.png
mkdir "$KITH_IMAGES"
python3 ../images.py "$KITH_IMAGES" 5 "$KITH_LARGE_IMAGE"

KITH_KEY=$(create_key open clients embed)
KITH_LIMITED_KEYS={}
for name in openai cohere litellm openai-js cohere-js kith-client; do
    KITH_LIMITED_KEYS=$(python3 -c 'import json, sys; print(json.dumps({**json.loads(sys.argv[1]), sys.argv[2]: sys.argv[3]}))' "$KITH_LIMITED_KEYS" $name "$(create_key limited $name embed)")
done
start open training.enabled=false server.max_body_bytes=262144
KITH_URL=$url
start limited training.enabled=false keys.requests_per_minute=20 keys.bytes_per_day=400000
KITH_LIMITED_URL=$url
KITH_LEARNING_KEY=$(create_key learning clients admin)
start learning training.min_pairs=2
KITH_LEARNING_URL=$url
# The dashboard's server trains and searches: its pages show both.
KITH_DASHBOARD_KEYS=$(printf '{"admin": "%s", "embed": "%s"}' "$(create_key dashboard admin admin)" "$(create_key dashboard reader embed)")
start dashboard training.min_pairs=2 training.batch=2 pairs.holdout_share=0 snapshots.first_steps=0 snapshots.every_steps=0 snapshots.every_minutes=0 history.every_seconds=1
KITH_DASHBOARD_URL=$url
export KITH_DASHBOARD_KEYS KITH_DASHBOARD_URL
export KITH_KEY KITH_LIMITED_KEYS KITH_URL KITH_LIMITED_URL KITH_LEARNING_KEY KITH_LEARNING_URL
export KITH_PROGRAM=$kith KITH_LEARNING_DATA=$work/learning KITH_SETTINGS="${tiny[*]}"

check_package() {
    cd "$package"
    "$venv/bin/ruff" check --quiet --no-cache .
    "$venv/bin/ruff" format --quiet --no-cache --check .
    "$venv/bin/mypy" --no-error-summary --cache-dir="$work/mypy"
    timeout 300 "$venv/bin/python" -m pytest --quiet --disable-warnings -p no:cacheprovider
}

# All at once: most of their time they wait.
(set -e; check_package) >"$work/package" 2>&1 &
checks=$!
timeout 300 "$venv/bin/python" -m pytest --quiet --disable-warnings -p no:cacheprovider . >"$work/python" 2>&1 &
python=$!
status=0
timeout 600 "$node" --test --test-concurrency=1 --test-reporter=spec || status=$?
wait "$python" || status=$?
wait "$checks" || status=$?
cat "$work/python" "$work/package"
all_run || status=1
echo "clients: status $status, $((SECONDS - started)) s beside installing"
exit "$status"
