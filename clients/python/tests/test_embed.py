"""Images become vectors, whatever form they have."""

import base64
import io
from pathlib import Path
from typing import cast

import numpy as np
import PIL.Image
import pytest

from conftest import KEY, URL
from kith_client import ImageInput, InvalidRequest, Kith, NotFound


def pillow(path: Path) -> PIL.Image.Image:
    with PIL.Image.open(path) as image:
        image.load()
        return image


def test_every_form_of_an_image_gives_the_vectors_of_its_file(kith: Kith, drawings: list[Path]) -> None:
    path = drawings[0]
    file = path.read_bytes()
    expected = kith.embed(path)
    assert expected.vectors.shape == (1, 16)
    assert expected.vectors.dtype == np.float32
    uri = "data:image/png;base64," + base64.b64encode(file).decode()
    forms: list[ImageInput] = [str(path), file, io.BytesIO(file), uri, pillow(path), np.asarray(pillow(path).convert("RGBA"))]
    for form in forms:
        # Not "kith": what serves may be another checkpoint by now.
        np.testing.assert_array_equal(kith.embed(form, model=expected.model).vectors, expected.vectors)


def test_a_list_gives_a_row_for_each_image_in_order(kith: Kith, drawings: list[Path]) -> None:
    found = kith.embed(drawings[:5], batch=2)
    assert found.model.startswith("kith@")
    assert len(found) == 5
    for path, row in zip(drawings, found.vectors, strict=False):
        np.testing.assert_array_equal(kith.embed(path, model=found.model).vectors[0], row)


def test_an_array_of_four_dimensions_is_a_list_of_images(kith: Kith) -> None:
    images = np.random.default_rng(7).integers(0, 256, (3, 20, 30, 3), np.uint8)
    found = kith.embed(images)
    expected = kith.embed([PIL.Image.fromarray(image) for image in images], model=found.model)
    np.testing.assert_array_equal(found.vectors, expected.vectors)


def test_an_image_that_a_camera_left_lying_is_turned_as_its_file_would_be(kith: Kith, drawings: list[Path]) -> None:
    image = pillow(drawings[0]).convert("RGB")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, exif=exif)
    live = kith.checkpoints.live().id
    vectors = kith.embed([file.getvalue(), PIL.Image.open(file), image], model=f"kith@{live}").vectors
    turned, lying = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    # Decoders of JPEG differ in the last bits.
    assert turned > 0.999
    assert lying < turned


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_every_mode_of_pillow_is_taken(kith: Kith, mode: str) -> None:
    path = {"PA": ["LA", "PA"], "RGBa": ["RGBA", "RGBa"]}.get(mode, [mode])
    image = PIL.Image.new("RGB", (8, 8), (200, 100, 50))
    for step in path:
        image = image.convert(step)
    assert len(kith.embed(image)) == 1


def test_what_is_no_image_is_refused_before_it_is_sent(kith: Kith) -> None:
    for wrong, error in [
        (np.zeros((8, 8, 3)), TypeError),
        (np.zeros((8, 8, 2), np.uint8), ValueError),
        (7, TypeError),
        (PIL.Image.new("F", (8, 8)), ValueError),
        ("data:text/plain,hello", ValueError),
        (Path("nowhere.png"), FileNotFoundError),
    ]:
        with pytest.raises(error):
            kith.embed([cast(ImageInput, wrong)])
    with pytest.raises(ValueError, match="no image"):
        kith.embed([])


def test_smaller_formats_have_their_types_and_come_near_the_floats(kith: Kith, drawings: list[Path]) -> None:
    images = drawings[:3]
    exact = kith.embed(images)
    for format, dtype in [("int8", np.int8), ("uint8", np.uint8)]:
        found = kith.embed(images, format=format, model=exact.model)  # type: ignore[arg-type]
        assert found.vectors.dtype == dtype
        assert found.scale is not None
        # Values beyond the scale are cut off.
        limit = 127 * found.scale
        np.testing.assert_allclose(found.as_float(), exact.vectors.clip(-limit, limit), atol=found.scale)
    bits = kith.embed(images, format="ubinary", model=exact.model)
    assert bits.vectors.shape == (3, 2)
    np.testing.assert_array_equal(bits.vectors, np.packbits(exact.vectors > 0, axis=1))
    with pytest.raises(ValueError, match="Hamming"):
        bits.as_float()


def test_options_reach_the_server(kith: Kith, drawings: list[Path]) -> None:
    whole = kith.embed(drawings[0])
    few = kith.embed(drawings[0], dimensions=4, model=whole.model).vectors[0]
    np.testing.assert_allclose(few, whole.vectors[0, :4] / np.linalg.norm(whole.vectors[0, :4]), rtol=1e-5)
    assert kith.embed(drawings[0], layer="hidden").vectors.shape == (1, 64)
    assert len(kith.embed(drawings[0], input_type="query", priority="bulk")) == 1
    with pytest.raises(InvalidRequest) as caught:
        kith.embed(drawings[0], dimensions=1000)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_dimensions", "dimensions")
    assert caught.value.request_id
    with pytest.raises(NotFound):
        kith.embed(drawings[0], model="nobody")


def test_a_refused_image_is_named_among_all_images(kith: Kith, drawings: list[Path]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        kith.embed([*drawings[:6], b"no image", drawings[0]], batch=4)
    assert caught.value.code == "image_undecodable"
    assert caught.value.param == "input[6]"
    assert "input[6]" in str(caught.value)


def test_the_address_and_the_key_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch, drawings: list[Path]) -> None:
    monkeypatch.setenv("KITH_URL", URL)
    # A variable read from a file often ends with a line break.
    monkeypatch.setenv("KITH_KEY", KEY + "\n")
    with Kith() as client:
        assert client.ready()
        assert client.url == URL
        assert client.models.get().dimensions == client.embed(drawings[0]).vectors.shape[1]
