"""The vectors of `vector_index.py` in Qdrant: a collection for each checkpoint, and the alias `images` of the one that is searched."""

import uuid

import numpy as np
from qdrant_client import QdrantClient, models

SEARCHED = "images"
BUILDING = "images-building"
PREFIX = "images-kith-"


class QdrantStore:
    def __init__(self, place: str) -> None:
        """`place`: a server's URL, or the folder of a store without a server."""
        self.client = QdrantClient(url=place) if "://" in place else QdrantClient(path=place)

    def models(self) -> tuple[str | None, str | None]:
        names = {alias.alias_name: alias.collection_name for alias in self.client.get_aliases().aliases}
        found = [names.get(alias) for alias in (SEARCHED, BUILDING)]
        searched, building = [name and name.replace(PREFIX, "kith@") for name in found]
        return searched, building

    def begin(self, model: str, dimensions: int) -> None:
        searched, building = self.models()
        keep = {collection(one) for one in (searched, model) if one}
        for old in self.client.get_collections().collections:
            if old.name.startswith(PREFIX) and old.name not in keep:
                self.client.delete_collection(old.name)
        if not self.client.collection_exists(collection(model)):
            # Vectors have unit length, so the inner product is the cosine.
            vectors = models.VectorParams(size=dimensions, distance=models.Distance.DOT)
            self.client.create_collection(collection(model), vectors_config=vectors)
        self._move(BUILDING, model, [BUILDING] if building and building != model else [])

    def paths(self, model: str) -> set[str]:
        found: set[str] = set()
        offset = None
        while True:
            page, offset = self.client.scroll(collection(model), limit=1000, offset=offset, with_payload=["path"])
            found |= {(point.payload or {})["path"] for point in page}
            if offset is None:
                return found

    def write(self, model: str, rows: dict[str, np.ndarray]) -> None:
        points = [
            # The same image is the same point.
            models.PointStruct(id=str(uuid.uuid5(uuid.NAMESPACE_URL, path)), vector=vector.tolist(), payload={"path": path})
            for path, vector in rows.items()
        ]
        self.client.upsert(collection(model), points, wait=True)

    def swap(self, model: str) -> None:
        searched, _ = self.models()
        self._move(SEARCHED, model, [BUILDING, *([SEARCHED] if searched else [])])

    def search(self, vector: np.ndarray, k: int) -> list[tuple[str, float]]:
        found = self.client.query_points(SEARCHED, query=vector.tolist(), limit=k, with_payload=["path"])
        return [((point.payload or {})["path"], point.score) for point in found.points]

    def _move(self, alias: str, model: str, ended: list[str]) -> None:
        """Ends some aliases and sets one, in one step for all readers."""
        delete = [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=one)) for one in ended]
        create = models.CreateAlias(alias_name=alias, collection_name=collection(model))
        self.client.update_collection_aliases([*delete, models.CreateAliasOperation(create_alias=create)])


def collection(model: str) -> str:
    return model.replace("kith@", PREFIX)
