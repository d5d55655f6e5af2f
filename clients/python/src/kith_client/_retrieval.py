"""Retrieval figures of vectors, as the server computes them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from .types import Retrieval

Vectors = npt.NDArray[np.float32]


def retrieval(queries: Vectors, query_keys: Sequence[Hashable], gallery: Vectors, gallery_keys: Sequence[Hashable]) -> Retrieval:
    """How well `queries` `[n, d]` find images of their key in `gallery` `[m, d]`; both have unit length.

    The rank of a query is that of its best match; ties count against the match. A query without a match counts as never found.
    `ValueError` if there is no query or no gallery.
    """
    if not len(queries) or not len(gallery):
        raise ValueError("at least one query and one image of the gallery are needed")
    numbers: dict[Hashable, int] = {}
    codes = [np.array([numbers.setdefault(key, len(numbers)) for key in keys]) for keys in (query_keys, gallery_keys)]
    matches = codes[0][:, None] == codes[1]
    scores = queries @ gallery.T
    best = np.where(matches, scores, -np.inf).max(axis=1)
    ahead = ((scores >= best[:, None]) & ~matches).sum(axis=1)
    ranks = np.where(matches.any(axis=1), 1.0 + ahead, np.inf)
    return Retrieval(
        recall_at_1=float((ranks <= 1).mean()),
        recall_at_5=float((ranks <= 5).mean()),
        recall_at_10=float((ranks <= 10).mean()),
        mrr=float((1 / ranks).mean()),
    )
