"""The package as a whole: its halves agree, its types are the server's, its notebook runs."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import nbclient
import nbformat
import numpy as np
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
    types.StageNorms: ["StageNorms"],
    types.Alarm: ["Alarm"],
    types.Training: ["TrainingStatus"],
    types.StepMetrics: ["StepMetrics"],
    types.CheckpointEvaluation: ["EvaluationRow"],
    types.TrainingMetrics: ["MetricsResponse"],
    types.Canary: ["CanaryResponse"],
    types.Alias: ["AliasResponse"],
    types.Hit: ["FoundImage"],
    types.SearchCoverage: ["NextModel"],
    types.SearchResult: ["SearchResponse"],
    types.SearchSpace: ["SpaceResponse"],
    types.SearchState: ["SearchState"],
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
    answer = {"data": [{"id": "a", "score": 0.5, "group": None}], "model": "kith@1", "indexed_share": 1.0}
    later = {**answer, "next": {"model": "kith@2", "indexed_share": 0.75}}
    kith, asked = scripted(*[httpx.Response(200, json=one) for one in (answer, later)])
    found = kith.search(b"image", k=3, group="g")
    assert (found.data[0].id, found.data[0].score, found.model, found.indexed_share, found.next) == ("a", 0.5, "kith@1", 1, None)
    found = kith.search(vector=np.ones(2, np.float32), checkpoint="1", priority="bulk")
    assert found.next == types.SearchCoverage("kith@2", 0.75)
    assert [json.loads(request.content) for request in asked] == [
        {"image": "aW1hZ2U=", "k": 3, "group": "g"},
        {"vector": [1.0, 1.0], "k": 10, "checkpoint": "1"},
    ]
    assert [request.headers.get("x-kith-priority") for request in asked] == [None, "bulk"]


def test_a_stored_image_is_found_by_its_bytes_its_id_and_its_vector(kith: Kith, drawings: list[Path]) -> None:
    stored = [kith.images.add(path).id for path in drawings[:3]]
    # Stored images are embedded for search in the background.
    deadline = time.monotonic() + 60
    while (state := kith.search_state()).data[0].indexed_share < 1:
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    assert state.enabled
    assert state.stored_images >= 3
    assert (state.data[0].role, state.data[0].images) == ("answering", state.stored_images)
    found = kith.search(drawings[0], k=1)
    assert found.data[0].score == pytest.approx(1, abs=1e-2)
    checkpoint = found.model.removeprefix("kith@")
    vector = kith.embed(drawings[0], model=found.model).vectors[0]
    everything = kith.search(vector=vector, k=1000, checkpoint=checkpoint)
    assert set(stored) <= {hit.id for hit in everything.data}
    assert everything.data[0].score == pytest.approx(1, abs=1e-2)
    near = kith.search(id=stored[0], k=5)
    assert len(near.data) == 5
    assert stored[0] not in [hit.id for hit in near.data]


@pytest.mark.usefixtures("learning")
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITH_URL", URL)
    monkeypatch.setenv("KITH_KEY", KEY)
    monkeypatch.setenv("KITH_IMAGES", str(EMOJI))
    notebook = nbformat.reads((PACKAGE / "examples/quick_start.ipynb").read_text(), as_version=4)  # type: ignore[no-untyped-call]
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert all("outputs" not in cell or cell.get("execution_count") is not None for cell in notebook.cells)
