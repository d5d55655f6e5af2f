"""The package as a whole: its halves agree, its types are the server's, its notebook runs."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import nbclient
import nbformat
import pytest

from conftest import EMOJI, KEY, URL, scripted
from kith_client import Kith, types

PACKAGE = Path(__file__).parents[1]
# Where a type has another name in the server's document.
SCHEMAS = {
    types.Model: ["ModelResponse"],
    types.Image: ["ImageResponse"],
    types.Pair: ["PairResponse"],
    types.Retrieval: ["Retrieval"],
    types.Geometry: ["Geometry"],
    types.Evaluation: ["Evaluation"],
    types.CheckpointFile: ["Part"],
    types.Checkpoint: ["CheckpointResponse"],
    types.CheckpointSummary: ["CheckpointSummary"],
    types.Training: ["TrainingStatus"],
    types.StepMetrics: ["StepMetrics"],
    types.CheckpointEvaluation: ["EvaluationRow"],
    types.TrainingMetrics: ["MetricsResponse"],
    types.Canary: ["CanaryResponse"],
    types.Alias: ["AliasResponse"],
}


@pytest.fixture(scope="module")
def document() -> Any:
    return httpx.get(f"{URL}/openapi.json").json()


@pytest.mark.parametrize("answer", SCHEMAS, ids=lambda answer: answer.__name__)
def test_every_field_is_one_of_the_servers(document: Any, answer: type[Any]) -> None:
    schemas = [document["components"]["schemas"][name] for name in SCHEMAS[answer]]
    fields = {name for schema in schemas for name in schema["properties"]}
    required = {name for schema in schemas for name in schema.get("required", [])}
    for field in dataclasses.fields(answer):
        if answer is types.Training and field.name == "checkpoint":
            continue
        assert field.name in fields
        # What the server may leave out has a default.
        assert field.name in required or field.default is None, field.name


def test_the_synchronous_client_is_made_from_the_asynchronous_one(tmp_path: Path) -> None:
    subprocess.run([sys.executable, PACKAGE / "tools/make_sync.py", tmp_path], check=True)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.py")}
    assert made == {path.name: path.read_text() for path in (PACKAGE / "src/kith_client/_sync").glob("*.py")}
    assert len(made) > 5


def test_a_search_is_sent_and_read_as_the_interface_says() -> None:
    answer = {"data": [{"id": "a", "score": 0.5, "group": None}], "model": "kith@1", "indexed_share": 0.75}
    kith, asked = scripted(*[httpx.Response(200, json=answer)] * 2)
    found = kith.search(b"image", k=3, group="g")
    assert (found.data[0].id, found.data[0].score, found.model, found.indexed_share) == ("a", 0.5, "kith@1", 0.75)
    kith.search(vector=[1, 0])
    assert [json.loads(request.content) for request in asked] == [
        {"image": "aW1hZ2U=", "k": 3, "group": "g"},
        {"vector": [1.0, 0.0], "k": 10},
    ]


def test_a_stored_image_is_found_by_itself(kith: Kith, document: Any, drawings: list[Path]) -> None:
    if "/v1/search" not in document["paths"]:
        pytest.skip("this server has no search")
    stored = kith.images.add(drawings[0])
    assert kith.search(drawings[0], k=1).data[0].id == stored.id


@pytest.mark.usefixtures("learning")
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITH_URL", URL)
    monkeypatch.setenv("KITH_KEY", KEY)
    monkeypatch.setenv("KITH_IMAGES", str(EMOJI))
    notebook = nbformat.reads((PACKAGE / "examples/quick_start.ipynb").read_text(), as_version=4)  # type: ignore[no-untyped-call]
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert all("outputs" not in cell or cell.get("execution_count") is not None for cell in notebook.cells)
