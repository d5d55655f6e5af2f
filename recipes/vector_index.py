"""Keeps a vector database in step with kith: filled by `kith embed`, and carried over to each checkpoint that is promoted.

    python vector_index.py pgvector DSN fill FOLDER      embed the images of a folder that are not there yet
    python vector_index.py pgvector DSN follow           carry the index over whenever a checkpoint is promoted
    python vector_index.py pgvector DSN search IMAGE     the nearest images
    python vector_index.py qdrant URL|FOLDER …           the same in Qdrant, a server's or a folder's

Vectors of different checkpoints cannot be compared, so each checkpoint has a table (or collection) of its own. One of them is searched. After a
promotion the next is built beside it; who adds images meanwhile writes to both. When nothing is missing, the name that is searched moves over in one step.
The previous table stays, so that going back to its checkpoint embeds only what has been added since.

Needs a key of scope `admin` in KITH_KEY where the server has keys: two aliases keep the checkpoints of the index from being pruned.
"""

import argparse
import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from image_files import image_files
from kith_client import ImageInput, Kith
from tqdm import tqdm

# Of one call of `kith embed`; the command line has a limit.
FILES_AT_ONCE = 500
ROWS_AT_ONCE = 64

Rows = dict[str, np.ndarray]


class Store(Protocol):
    """What is asked of the database. A model is `kith@ID`; a vector has unit length."""

    def models(self) -> tuple[str | None, str | None]:
        """The model that is searched, and the one that is being built."""

    def begin(self, model: str, dimensions: int) -> None:
        """Lets a model be the one that is being built; what it has already stays. Models besides these two are dropped."""

    def paths(self, model: str) -> set[str]:
        """The images that have a vector of the model."""

    def write(self, model: str, rows: Rows) -> None:
        """Stores vectors; those of the same image are replaced."""

    def swap(self, model: str) -> None:
        """Lets the model that was built be searched, in one step for all readers."""

    def search(self, vector: np.ndarray, k: int) -> list[tuple[str, float]]:
        """The paths nearest to a vector of the model that is searched, and their cosines."""


class Index:
    """The index of one store. Any number of processes may add to it; one carries it over."""

    def __init__(self, kith: Kith, store: Store, program: str = "kith", name: str = "vector-index") -> None:
        self.kith = kith
        self.store = store
        self.program = program
        self.name = name

    def fill(self, folder: Path) -> None:
        """Adds the images of a folder that are not there yet."""
        if self.store.models()[0] is None:
            self.carry_over()
        files = [str(path) for path in image_files(folder)]
        searched, _ = self.store.models()
        there = self.store.paths(searched) if searched else set()
        self.add([path for path in files if path not in there])

    def add(self, paths: list[str]) -> None:
        """Stores vectors of images: of the model that is searched, and of the one that is being built."""
        written: set[str] = set()
        # Looked at again after each write: the index may have been carried over meanwhile.
        while todo := [model for model in self.store.models() if model and model not in written]:
            for rows in self._embed(todo[0], paths):
                self.store.write(todo[0], rows)
            written.add(todo[0])

    def carry_over(self) -> None:
        """Builds the index of the live checkpoint beside the one that is searched, and swaps them."""
        live = self.kith.checkpoints.live().id
        model = f"kith@{live}"
        searched, _ = self.store.models()
        if model == searched:
            return
        self.kith.aliases.set(f"{self.name}-building", live)
        self.store.begin(model, self.kith.models.get(model).dimensions)
        failed: set[str] = set()
        while searched and (missing := sorted(self.store.paths(searched) - self.store.paths(model) - failed)):
            # A file that cannot be embedded any more has no place in the new index.
            failed |= set(missing)
            for rows in self._embed(model, missing):
                self.store.write(model, rows)
                failed -= set(rows)
        self.store.swap(model)
        self.kith.aliases.set(self.name, live)
        self.kith.aliases.delete(f"{self.name}-building")
        print(f"searched: {model}", flush=True)

    def follow(self) -> None:
        """Carries the index over after each promotion, until it is interrupted."""
        with self.kith.events(["promotion"]) as promotions:
            self.carry_over()
            for _ in promotions:
                self.carry_over()

    def search(self, image: ImageInput, k: int = 10) -> list[tuple[str, float]]:
        """The images nearest to one, with their cosines."""
        searched, _ = self.store.models()
        if searched is None:
            raise LookupError("nothing has been stored yet: fill the index first")
        return self.store.search(self.kith.embed(image, model=searched).vectors[0], k)

    def _embed(self, model: str, paths: list[str]) -> Iterator[Rows]:
        """Vectors by path, in batches; without the files that fail, which `kith embed` names."""
        bar = tqdm(total=len(paths), unit="image", desc=model, disable=None)
        for files in batches(paths, FILES_AT_ONCE):
            command = [self.program, "embed", "--server", str(self.kith.url), "--model", model, "--keep-going", *files]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                for lines in batches(process.stdout or [], ROWS_AT_ONCE):
                    found = [json.loads(line) for line in lines]
                    yield {row["path"]: np.asarray(row["embedding"], np.float32) for row in found}
                    bar.update(len(found))
            # 1: files failed and were left out.
            if process.returncode not in (0, 1):
                raise RuntimeError(f"kith embed ended with {process.returncode}")
        bar.close()


def batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of at most `size` of the items."""
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def open_store(kind: str, place: str) -> Store:
    if kind == "pgvector":
        from pgvector_store import PgvectorStore

        return PgvectorStore(place)
    from qdrant_store import QdrantStore

    return QdrantStore(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", choices=["pgvector", "qdrant"])
    parser.add_argument("place", help="pgvector: a connection string; qdrant: a server's URL, or a folder")
    parser.add_argument("--kith", default="kith", help="the program")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fill").add_argument("folder", type=Path)
    commands.add_parser("follow")
    commands.add_parser("search").add_argument("image", type=Path)
    args = parser.parse_args()
    with Kith() as kith:
        index = Index(kith, open_store(args.store, args.place), args.kith)
        if args.command == "fill":
            index.fill(args.folder)
        elif args.command == "follow":
            index.follow()
        else:
            for path, score in index.search(args.image):
                print(f"{score:.4f}  {path}")


if __name__ == "__main__":
    main()
