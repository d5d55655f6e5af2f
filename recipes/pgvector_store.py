"""The vectors of `vector_index.py` in PostgreSQL with pgvector: a table for each checkpoint, and the view `image_embedding` of the one that is searched.

`SELECT path FROM image_embedding ORDER BY embedding <#> $1 LIMIT 10` is the search in SQL; the view's column `model` says what must embed the query.
"""

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
-- Which model is searched, and which is being built.
CREATE TABLE IF NOT EXISTS image_index (role text PRIMARY KEY CHECK (role IN ('searched', 'building')), model text NOT NULL);
"""
PREFIX = "embedding_"


class PgvectorStore:
    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.connection.execute(SCHEMA)
        register_vector(self.connection)

    def models(self) -> tuple[str | None, str | None]:
        roles = dict(self.connection.execute("SELECT role, model FROM image_index").fetchall())
        return roles.get("searched"), roles.get("building")

    def begin(self, model: str, dimensions: int) -> None:
        searched, _ = self.models()
        keep = {table_name(one) for one in (searched, model) if one}
        with self.connection.transaction():
            tables = self.connection.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'embedding\\_%'").fetchall()
            for (old,) in tables:
                if old not in keep:
                    self.connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(old)))
            create = "CREATE TABLE IF NOT EXISTS {} (path text PRIMARY KEY, embedding vector({}) NOT NULL)"
            self.connection.execute(sql.SQL(create).format(table(model), sql.Literal(dimensions)))
            self._set_role("building", model)

    def paths(self, model: str) -> set[str]:
        return {path for (path,) in self.connection.execute(sql.SQL("SELECT path FROM {}").format(table(model)))}

    def write(self, model: str, rows: dict[str, np.ndarray]) -> None:
        insert = "INSERT INTO {} VALUES (%s, %s) ON CONFLICT (path) DO UPDATE SET embedding = EXCLUDED.embedding"
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(sql.SQL(insert).format(table(model)), list(rows.items()))

    def swap(self, model: str) -> None:
        # Before anybody searches it. Vectors have unit length, so the inner product is the cosine.
        index = sql.Identifier(f"{table_name(model)}_hnsw")
        create = "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (embedding vector_ip_ops)"
        self.connection.execute(sql.SQL(create).format(index, table(model)))
        view = "CREATE VIEW image_embedding AS SELECT path, embedding, {} AS model FROM {}"
        with self.connection.transaction():
            self._set_role("searched", model)
            self.connection.execute("DELETE FROM image_index WHERE role = 'building'")
            self.connection.execute("DROP VIEW IF EXISTS image_embedding")
            self.connection.execute(sql.SQL(view).format(sql.Literal(model), table(model)))

    def search(self, vector: np.ndarray, k: int) -> list[tuple[str, float]]:
        query = "SELECT path, -(embedding <#> %(vector)s) FROM image_embedding ORDER BY embedding <#> %(vector)s LIMIT %(k)s"
        return self.connection.execute(query, {"vector": vector, "k": k}).fetchall()

    def _set_role(self, role: str, model: str) -> None:
        upsert = "INSERT INTO image_index VALUES (%s, %s) ON CONFLICT (role) DO UPDATE SET model = EXCLUDED.model"
        self.connection.execute(upsert, (role, model))


def table_name(model: str) -> str:
    return PREFIX + model.removeprefix("kith@").replace("-", "")


def table(model: str) -> sql.Identifier:
    return sql.Identifier(table_name(model))
