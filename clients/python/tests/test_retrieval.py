"""Figures of retrieval, on vectors whose ranks can be read off."""

import numpy as np
import pytest

from kith_client._retrieval import retrieval


def test_ranks_are_those_of_the_best_match_and_ties_count_against_it() -> None:
    gallery = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.8, 0.6]], np.float32)
    keys = ["a", "b", "c", "d"]
    queries = np.array([[1, 0], [1, 0], [0.8, 0.6], [1, 0]], np.float32)
    # a is first; b is fourth; c ties with d; nothing has the key e.
    found = retrieval(queries, ["a", "b", "c", "e"], gallery, keys)
    assert (found.recall_at_1, found.recall_at_5, found.recall_at_10) == (0.25, 0.75, 0.75)
    assert found.mrr == pytest.approx((1 + 1 / 4 + 1 / 2 + 0) / 4)


def test_other_matches_of_a_query_are_not_in_its_way() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    assert retrieval(vectors[1:2], ["a"], vectors, ["a", "a", "b"]).mrr == 1


def test_nothing_to_judge_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        retrieval(np.zeros((0, 2), np.float32), [], np.zeros((1, 2), np.float32), ["a"])
