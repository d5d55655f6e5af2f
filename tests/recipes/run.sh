#!/usr/bin/env bash
# Tests the recipes as their users run them: against the built server, PostgreSQL with pgvector, Qdrant, TensorBoard, LangChain and LlamaIndex.
# Usage: tests/recipes/run.sh [KITH]. Needs python3 with venv and PyPI. KITH_QDRANT_URL names a server of Qdrant; without it a folder is its store.
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
kith=$(realpath -m "${1:-$here/../../target/debug/kith}")
cd "$here"

work=$(mktemp -d)
source ../server.sh
trap clean_up EXIT
install_python recipes ../../recipes/requirements.txt ../../clients/python/pyproject.toml
end_if_installing
started=$SECONDS

KITH_KEY=$(create_key data recipes admin)
start data training.min_pairs=2
export KITH_KEY KITH_URL=$url KITH_PROGRAM=$kith PYTHONPATH=../../recipes

status=0
timeout 300 "$venv/bin/python" -m pytest --quiet --disable-warnings -p no:cacheprovider . || status=$?
all_run || status=1
echo "recipes: status $status, $((SECONDS - started)) s beside installing"
exit "$status"
