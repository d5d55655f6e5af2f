#!/usr/bin/env bash
# Tests a running server against its own document: the document is valid OpenAPI 3.1, and every answer that Schemathesis provokes is in it and
# none is a failure of the server. Usage: tests/contract/run.sh [KITH [SECONDS [SEED [EXAMPLES]]]]
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kith=$(realpath -m "${1:-$here/../../target/debug/kith}")
cd "$here"

seconds=${2:-60} seed=${3:-7} examples=${4:-30}
work=$(mktemp -d)
source ../server.sh
trap clean_up EXIT
install_python contract
end_if_installing

key=$(create_key data contract admin)
start data training.min_pairs=2

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
all_run || status=1
exit "$status"
