#!/usr/bin/env bash
# Tests a running server against its own document: the document is valid OpenAPI 3.1, and every answer that Schemathesis provokes is in it and
# none is a failure of the server. Usage: tests/contract/run.sh [KITH [SECONDS [SEED [EXAMPLES]]]]
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kith=$(realpath "${1:-$here/../../target/debug/kith}")
cd "$here"

seconds=${2:-60} seed=${3:-7} examples=${4:-30}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

venv=$here/../../target/contract-venv
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
if ! cmp -s requirements.txt "$venv/installed.txt"; then
    "$venv/bin/pip" install --quiet --requirement requirements.txt
    cp requirements.txt "$venv/installed.txt"
fi

tiny=(--set encoder.width=8 --set encoder.side=32 --set encoder.dim=16 --set training.min_pairs=2 --set storage.data_dir="$work/data" --set log.filter=warn)
key=$("$kith" key create --data-dir "$work/data" --name contract --scope admin --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])')
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
"$kith" serve "${tiny[@]}" --set server.listen="127.0.0.1:$port" >"$work/log" 2>&1 &
server=$!
for _ in $(seq 100); do
    curl -sf "$url/readyz" >/dev/null && break
    sleep 0.2
done

export PYTHONPATH=.:..
"$venv/bin/python" - "$url" "$key" <<'PYTHON'
import json
import sys
import urllib.request

from hooks import TEXTS
from openapi_spec_validator import OpenAPIV31SpecValidator

url, key = sys.argv[1:]
document = json.load(urllib.request.urlopen(f"{url}/openapi.json"))
OpenAPIV31SpecValidator(document).validate()
# Something to learn from: training runs meanwhile.
sides = list(zip(TEXTS, TEXTS[1:]))
pairs = [{"anchor": {"image": a}, "positive": {"image": b}} for a, b in sides]
headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
urllib.request.urlopen(urllib.request.Request(f"{url}/v1/pairs", json.dumps({"pairs": pairs}).encode(), headers))
print(f"the document is valid OpenAPI 3.1: {len(document['paths'])} paths")
PYTHON

# A stream of events has no end, which Schemathesis would wait for: it has its own tests (tests/all/http/events.rs).
status=0
SCHEMATHESIS_HOOKS=hooks "$venv/bin/schemathesis" --config-file schemathesis.toml run "$url/openapi.json" \
    --header "Authorization: Bearer $key" --exclude-path /v1/events --checks all --mode all --seed "$seed" --max-examples "$examples" \
    --generation-database none --max-time "$seconds" --request-timeout 30 --continue-on-failure || status=$?
kill -0 "$server" || { cat "$work/log"; exit 1; }
if grep panic "$work/log"; then status=1; fi
exit "$status"
