"""Recipes for a folder of images: retrieval by other frameworks, classes, near-duplicates, the Projector."""

import io
import json
import pathlib
import random
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
from conftest import EMOJI
from PIL import Image

QUERY = sorted((EMOJI / "twitter").glob("*.png"))[3]


@pytest.mark.parametrize("name", ["langchain_retrieval.py", "llamaindex_retrieval.py"])
def test_a_framework_finds_the_nearest_images(kith, folder, recipe, name):
    # Nothing is promoted while vectors are compared.
    kith.checkpoints.promote(kith.checkpoints.live().id)
    lines = recipe(name, folder / "even", QUERY).splitlines()
    paths = sorted((folder / "even").glob("*.png"))
    vectors = kith.embed([*paths, QUERY]).vectors
    scores = vectors[:-1] @ vectors[-1]
    found = [(float(score), paths.index(pathlib.Path(path))) for score, path in (line.split(None, 1) for line in lines)]
    # Images with the same score may change places.
    np.testing.assert_allclose([score for score, _ in found], np.sort(scores)[::-1][:5], atol=1e-4)
    np.testing.assert_allclose([score for score, _ in found], scores[[index for _, index in found]], atol=1e-4)


@pytest.fixture
def classes(tmp_path):
    """Twenty noisy images of each of three colours."""
    noise = np.random.default_rng(7)
    for label, colour in {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220)}.items():
        (tmp_path / "classes" / label).mkdir(parents=True)
        for index in range(20):
            pixels = np.clip(np.array(colour) + noise.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "classes" / label / f"{index}.png")
    (tmp_path / "classes/notes.txt").write_text("no image")
    return tmp_path / "classes"


def test_a_folder_of_classes_is_learned(classes, recipe):
    accuracies = re.findall(r"^(.*): ([0-9.]+) ±", recipe("classify_folder.py", classes), re.MULTILINE)
    assert [name for name, _ in accuracies] == ["nearest neighbours", "linear probe"]
    assert all(float(accuracy) > 0.9 for _, accuracy in accuracies)
    image = classes / "green/7.png"
    assert recipe("classify_folder.py", classes, image).splitlines() == [
        f"nearest neighbours: {image} is green",
        f"linear probe: {image} is green",
    ]


def test_labels_that_say_nothing_are_not_learned(classes, recipe):
    files = sorted(classes.rglob("*.png"))
    contents = [path.read_bytes() for path in files]
    random.Random(7).shuffle(contents)
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    accuracies = re.findall(r": ([0-9.]+) ±", recipe("classify_folder.py", classes))
    assert all(float(accuracy) < 0.7 for accuracy in accuracies)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_near_duplicates_are_planned_first_and_moved_when_asked(kith, folder, recipe, tmp_path):
    originals = sorted(folder.rglob("*.png"))[:3]
    copies = []
    for path in originals:
        with Image.open(path) as image:
            # The same image in half its size.
            copy = folder / "copies" / f"{path.stem}-small.png"
            copy.parent.mkdir(exist_ok=True)
            image.resize((image.width // 2, image.height // 2)).save(copy)
            copies.append(copy)
    vectors = kith.embed(sorted(folder.rglob("*.png"))).vectors
    paths = sorted(folder.rglob("*.png"))
    copied = [vectors[paths.index(one)] @ vectors[paths.index(other)] for one, other in zip(originals, copies, strict=True)]
    threshold = min(copied) - 1e-4
    before = files(folder)
    plan = recipe("deduplicate.py", folder, "--threshold", threshold)
    assert files(folder) == before
    for copy in copies:
        assert f"move {copy} (" in plan
    assert "would be moved" in plan
    moved = set(re.findall(r"move (\S+) \(", plan))
    assert not moved & set(re.findall(r"keep (\S+)", plan))
    done = recipe("deduplicate.py", folder, "--threshold", threshold, "--move-to", tmp_path / "aside")
    assert "moved to" in done
    # Nothing is lost, and a second run finds nothing more.
    assert {**files(folder), **files(tmp_path / "aside")} == before
    assert set(files(tmp_path / "aside")) == {str(pathlib.Path(path).relative_to(folder)) for path in moved}
    assert recipe("deduplicate.py", folder, "--threshold", threshold).startswith("0 of ")


def test_groups_of_near_duplicates_are_linked_over_others():
    from deduplicate import groups

    angles = np.radians([0, 5, 10, 90, 180, 184])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert groups(vectors, np.cos(np.radians(6))) == [[0, 1, 2], [4, 5]]


@pytest.fixture
def tensorboard(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", tmp_path / "out", "--port", str(port), "--load_fast", "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        # It says so when it listens.
        for line in server.stderr:
            if "Press CTRL+C to quit" in line:
                break

        def get(what, **query):
            url = f"http://127.0.0.1:{port}/data/plugin/projector/{what}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.read()

        yield get
        server.terminate()


def test_tensorboards_projector_reads_the_export(kith, folder, recipe, tmp_path, request):
    kith.checkpoints.promote(kith.checkpoints.live().id)
    recipe("projector.py", folder, tmp_path / "out")
    get = request.getfixturevalue("tensorboard")
    (run,) = json.loads(get("runs"))
    (embedding,) = json.loads(get("info", run=run))["embeddings"]
    name = embedding["tensorName"]
    assert embedding["tensorShape"] == [30, 16]
    vectors = np.frombuffer(get("tensor", run=run, name=name), "<f4").reshape(30, 16)
    paths = sorted(folder.rglob("*.png"))
    np.testing.assert_allclose(vectors, kith.embed(paths).vectors, rtol=1e-4, atol=1e-6)
    rows = get("metadata", run=run, name=name).decode().splitlines()
    assert rows[0] == "folder\tfile"
    assert rows[1:] == [f"{path.parent.name}\t{path.name}" for path in paths]
    sheet = Image.open(io.BytesIO(get("sprite_image", run=run, name=name)))
    assert sheet.size == (6 * 48, 6 * 48)
    # The third thumbnail of the second row is the ninth image.
    with Image.open(paths[8]) as image:
        right = Image.new("RGBA", image.size, "white")
        right.alpha_composite(image.convert("RGBA"))
        right = np.asarray(right.convert("RGB").resize((48, 48)), float)
    shown = np.asarray(sheet.convert("RGB").crop((96, 48, 144, 96)), float)
    assert np.abs(shown - right).mean() < 8
