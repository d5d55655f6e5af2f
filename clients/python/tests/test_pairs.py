"""What is posted is stored: pairs, one and many, and images."""

import hashlib
from pathlib import Path

import pytest

from kith_client import Conflict, ImageId, InvalidRequest, Kith, NotFound, Pair, PairFailure, PairInput

Matches = list[tuple[Path, Path]]


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_pair_is_stored_once_and_found_listed_and_deleted(kith: Kith, matches: Matches) -> None:
    anchor, positive = matches[100]
    stored = kith.pairs.add(anchor, positive, group="group of one", weight=2.5)
    assert (stored.anchor, stored.positive, stored.group) == (sha(anchor), sha(positive), "group of one")
    again = kith.pairs.add(ImageId(stored.anchor), kith.images.get(stored.positive))
    assert again.duplicate
    assert again.id == stored.id
    assert kith.pairs.get(stored.id).created_at == stored.created_at
    assert stored.weight == kith.pairs.get(stored.id).weight == 2.5
    assert [pair.id for pair in kith.pairs.list(group="group of one")] == [stored.id]
    with pytest.raises(Conflict) as caught:
        kith.pairs.add(anchor, positive, group="another")
    assert caught.value.code == "group_conflict"
    kith.pairs.delete(stored.id)
    with pytest.raises(NotFound):
        kith.pairs.get(stored.id)


def test_a_pair_needs_no_positive(kith: Kith, matches: Matches) -> None:
    pair = kith.pairs.add(matches[101][0])
    assert pair.anchor == pair.positive


def test_a_document_of_pairs_is_stored_whole_or_not_at_all(kith: Kith, matches: Matches) -> None:
    good = [PairInput(*match, group="whole") for match in matches[102:105]]
    with pytest.raises(InvalidRequest) as caught:
        kith.pairs.add_all([*good, PairInput(b"no image")])
    assert caught.value.param == "pairs[3].anchor"
    assert not list(kith.pairs.list(group="whole"))
    stored = kith.pairs.add_all(good)
    assert [pair.id for pair in kith.pairs.list(group="whole")] == [pair.id for pair in stored]
    for pair in stored:
        kith.pairs.delete(pair.id)


def test_an_idempotency_key_answers_a_retry_as_the_first_request(kith: Kith, matches: Matches) -> None:
    pairs = [PairInput(*matches[106])]
    first = kith.pairs.add_all(pairs, idempotency_key="once")
    assert kith.pairs.add_all(pairs, idempotency_key="once") == first
    with pytest.raises(InvalidRequest) as caught:
        kith.pairs.add_all([PairInput(*matches[107])], idempotency_key="once")
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")


def test_a_stream_has_a_result_for_each_pair_in_order(kith: Kith, matches: Matches) -> None:
    pairs = [PairInput(*match, group=f"g{number}") for number, match in enumerate(matches[110:260])]
    pairs[70] = PairInput(pairs[70].anchor, b"no image")
    results = list(kith.pairs.stream(pairs))
    assert len(results) == 150
    for number, result in enumerate(results):
        if number == 70:
            assert isinstance(result, PairFailure)
            assert (result.index, result.code, result.param) == (70, "image_undecodable", "positive")
        else:
            assert isinstance(result, Pair)
            assert result.anchor == sha(matches[110 + number][0])
    # More than a page.
    assert len(list(kith.pairs.list())) > 100


def test_a_stream_reads_no_further_than_its_results_are_taken(kith: Kith, matches: Matches) -> None:
    read: list[int] = []

    def endless() -> object:
        number = 0
        while True:
            read.append(number)
            yield PairInput(*matches[number % 20 + 270])
            number += 1

    results = kith.pairs.stream(endless())  # type: ignore[arg-type]
    for _ in range(65):
        next(results)
    assert len(read) < 200


def test_an_image_is_stored_listed_and_erased_with_its_pairs(kith: Kith, drawings: list[Path], matches: Matches) -> None:
    path = drawings[-1]
    image = kith.images.add(path)
    assert image == kith.images.get(sha(path))
    assert image.format == "png"
    assert kith.images.content(image.id) == path.read_bytes()
    assert image in list(kith.images.list())
    assert image not in list(kith.images.list(damaged=True))
    pair = kith.pairs.add(image, matches[0][0])
    kith.images.delete(image.id)
    for gone in (lambda: kith.images.get(image.id), lambda: kith.pairs.get(pair.id)):
        with pytest.raises(NotFound):
            gone()
