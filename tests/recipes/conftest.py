"""The server that `run.sh` started, which learns; folders of images; and the recipes as programs."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from kith_client import Kith, PairInput

ROOT = pathlib.Path(__file__).parents[2]
EMOJI = ROOT / "examples/emoji"


@pytest.fixture(scope="session")
def kith():
    with Kith() as client:
        yield client


@pytest.fixture(scope="session")
def learning(kith):
    """The server has pairs, and has made a step."""
    matches = [(path, EMOJI / "twitter" / path.name) for path in sorted((EMOJI / "google").glob("*.png"))[:60]]
    with kith.events(["step"]) as steps:
        list(kith.pairs.stream(PairInput(*match) for match in matches))
        next(steps)


@pytest.fixture
def folder(tmp_path):
    """A folder of 30 different images, in two sub-folders, and a file that is no image."""
    for index, path in enumerate(sorted((EMOJI / "google").glob("*.png"))[:30]):
        target = tmp_path / "images" / ("even" if index % 2 == 0 else "odd") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "images/even/notes.txt").write_text("no image")
    return tmp_path / "images"


@pytest.fixture
def recipe():
    """Runs a recipe as its head says, and gives what it prints."""

    def run(name, *arguments):
        command = [sys.executable, ROOT / "recipes" / name, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def promote(kith, learning):
    """Promotes a checkpoint that is not live, with other weights, and gives its id. Held, so that the gate promotes no other meanwhile."""
    taken = []

    def next_checkpoint():
        kith.checkpoints.promote(kith.checkpoints.live().id)
        with kith.events(["step"]) as steps:
            next(steps)
        taken.append(kith.checkpoints.promote(kith.checkpoints.snapshot().id).id)
        return taken[-1]

    yield next_checkpoint
    # At most `retention.max_kept` are kept because somebody asked for them.
    for id in taken:
        kith.checkpoints.update(id, keep=False)
