"""Training, checkpoints, aliases, events and evaluation of a server that learns."""

import csv
import dataclasses
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from kith_client import Conflict, EmbedOptions, Kith, NotFound

Matches = list[tuple[Path, Path]]


pytestmark = pytest.mark.usefixtures("learning")


def test_training_is_paused_resumed_and_watched(kith: Kith) -> None:
    with kith.events(["training"]) as events:
        assert kith.training.pause().state == "paused"
        assert next(event for event in events if event.data["state"] == "paused").kind == "training"
        kith.training.resume()
        assert next(event for event in events if event.data["state"] == "running").id
    with kith.events(["step"]) as steps:
        step = next(steps).data["step"]
        # The row of a step is written by the time of the next.
        next(steps)
    metrics = kith.training.metrics(since=1)
    assert step in [row.step for row in metrics.data]
    assert kith.training.set_learning_rate(1e-4).set_learning_rate == 1e-4
    assert kith.training.set_learning_rate("schedule").set_learning_rate is None


def test_a_checkpoint_is_taken_promoted_rolled_back_noted_and_deleted(kith: Kith) -> None:
    # Held, so that the gate promotes nothing meanwhile.
    before = kith.checkpoints.promote(kith.checkpoints.live().id)
    with kith.events(["step"]) as steps:
        next(steps)
    taken = kith.checkpoints.snapshot("before the sale")
    assert (taken.status, taken.note, taken.keep) == ("complete", "before the sale", True)
    assert taken.id in [one.id for one in kith.checkpoints.list()]
    with kith.events(["promotion"]) as events:
        promoted = kith.checkpoints.promote(taken.id)
        assert (promoted.role, promoted.held, promoted.decided_by) == ("live", True, "person")
        assert next(event for event in events if event.data["checkpoint"] == taken.id).data["held"]
    assert kith.training.status().checkpoint.held
    with pytest.raises(Conflict) as caught:
        kith.checkpoints.delete(taken.id)
    assert caught.value.code == "checkpoint_live"
    back = kith.checkpoints.roll_back()
    assert back.id == before.id
    assert kith.checkpoints.live().id == before.id
    assert kith.checkpoints.update(taken.id, note="as shipped", keep=False).note == "as shipped"
    kith.checkpoints.auto()
    assert not kith.training.status().checkpoint.held
    # Retention or the gate may have been there first.
    if taken.id in [one.id for one in kith.checkpoints.list() if one.role != "live"]:
        kith.checkpoints.delete(taken.id)
        with pytest.raises(NotFound):
            kith.checkpoints.get(taken.id)


def test_all_vectors_come_from_one_checkpoint_although_another_is_promoted_meanwhile(kith: Kith, drawings: list[Path]) -> None:
    before = kith.checkpoints.promote(kith.checkpoints.live().id).id
    with kith.events(["step"]) as steps:
        next(steps)
    other = kith.checkpoints.snapshot("for a test of batches").id
    parts = kith.embed_batches(drawings[:4], options=EmbedOptions(dimensions=8), batch=2)
    models = [next(parts).model]
    kith.checkpoints.promote(other)
    models += [part.model for part in parts]
    assert models == [f"kith@{before}"] * 2
    assert kith.embed(drawings[0]).checkpoint == other
    kith.checkpoints.auto()


def test_a_file_of_a_checkpoint_is_downloaded_whole(kith: Kith, tmp_path: Path) -> None:
    live = kith.checkpoints.get(kith.checkpoints.live().id)
    assert live.files
    part = next(file for file in live.files if file.name == "model.safetensors")
    target = kith.checkpoints.download(live.id, part.name, tmp_path / "model.safetensors")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == part.sha256
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(NotFound):
        kith.checkpoints.download(live.id, "nothing", tmp_path / "nothing")


def test_an_alias_is_set_moved_tried_and_deleted(kith: Kith, drawings: list[Path]) -> None:
    live = kith.checkpoints.live().id
    assert kith.aliases.set("stable").checkpoint == "auto"
    assert kith.aliases.set("stable", live).checkpoint == live
    assert kith.embed(drawings[0], model="stable").checkpoint == live
    tried = kith.aliases.try_candidate("stable", live, percent=10, shadow=True)
    assert tried.canary is not None
    assert (tried.canary.checkpoint, tried.canary.percent, tried.canary.shadow) == (live, 10, True)
    assert "stable" in [alias.name for alias in kith.aliases.list()]
    kith.aliases.delete("stable")
    with pytest.raises(NotFound):
        kith.aliases.delete("stable")


def test_models_say_what_they_are(kith: Kith) -> None:
    model = kith.models.get()
    assert (model.dimensions, model.hidden_dimensions, model.input_size) == (16, 64, 32)
    assert model.preprocessing["side"] == 32
    assert "kith" in [one.id for one in kith.models.list()]


def test_an_evaluation_has_the_figures_of_the_servers_own_command(kith: Kith, matches: Matches, tmp_path: Path) -> None:
    live = kith.checkpoints.live().id
    listed = matches[200:230]
    files = {}
    for side, name in enumerate(("query", "gallery")):
        files[name] = tmp_path / f"{name}.csv"
        with files[name].open("w", newline="") as file:
            csv.writer(file).writerows([("path", "key"), *((match[side], match[0].stem) for match in listed)])
    command = [os.environ["KITH_PROGRAM"], "evaluate", "--json", "--data-dir", os.environ["KITH_LEARNING_DATA"], "--checkpoint", live]
    for setting in os.environ["KITH_SETTINGS"].split():
        command += ["--set", setting]
    command += ["--query", str(files["query"]), "--gallery", str(files["gallery"])]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    expected = answer.get("evaluation", answer)["anchor_to_positive"]
    found = kith.evaluate(
        [(match[0].stem, match[0]) for match in listed], [(match[0].stem, match[1]) for match in listed], model=f"kith@{live}"
    )
    # Where two scores differ by rounding only, the rank of one query may.
    assert dataclasses.asdict(found) == pytest.approx(expected, abs=1.01 / len(listed))
    assert 0 < found.mrr < 1
