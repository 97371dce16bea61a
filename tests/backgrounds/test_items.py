"""Banks from any iterable of items."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.backgrounds import background_bank


def red(height: int, width: int) -> np.ndarray:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 200
    return pixels


def file_of(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


KINDS = {
    "array": red(8, 8),
    "picture": Image.fromarray(red(8, 8)),
    "bytes": file_of(red(8, 8)),
    "undecoded": {"bytes": file_of(red(8, 8)), "path": None},
    "tensor": torch.from_numpy(red(8, 8)).permute(2, 0, 1),
    "floats": torch.from_numpy(red(8, 8)).permute(2, 0, 1).float() / 255,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_gives_the_same_bank(kind: str) -> None:
    bank = background_bank(({"jpg": KINDS[kind], "cls": 2} for _ in range(3)), 8, image="jpg", label="cls")
    assert torch.equal(bank.images, torch.from_numpy(red(8, 8)).permute(2, 0, 1).expand(3, -1, -1, -1))
    assert bank.labels.tolist() == [2, 2, 2]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "undecoded"])
def test_items_may_be_the_pictures_themselves(kind: str) -> None:
    bank = background_bank((KINDS[kind] for _ in range(3)), 8)
    assert torch.equal(bank.images, torch.from_numpy(red(8, 8)).permute(2, 0, 1).expand(3, -1, -1, -1))
    assert bank.labels is None


def test_a_plain_picture_has_no_label_to_read() -> None:
    with pytest.raises(KeyError, match="item 0: expected something at 'image', got"):
        background_bank([red(8, 8)], 8, label="scene")


def test_pictures_cover_the_size_and_are_cropped_at_the_centre() -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255  # the centre
    bank = background_bank([(wide, "sea")], 4, image=0, label=1, classes=["meadow", "sea"])
    assert bool((bank.images == 255).all())
    assert bank.labels.tolist() == [1]


def test_a_limit_stops_the_stream() -> None:
    def endless():
        while True:
            yield {"image": red(4, 4)}

    assert len(background_bank(endless(), 4, limit=5)) == 5


@pytest.mark.parametrize(
    ("items", "options", "error", "text"),
    [
        ([], {}, ValueError, "items: expected at least one item"),
        ([{"pixels": red(4, 4)}], {}, KeyError, "item 0: expected something at 'image', got keys pixels"),
        ([{"image": "x.jpg"}], {}, TypeError, "image of item 0: expected a picture"),
        (
            [{"image": Image.fromarray(np.full((4, 4), 3000, np.uint16))}],
            {},
            TypeError,
            r"image of item 0: expected a picture of 8 bits a channel, got mode 'I;16'",
        ),
        ([{"image": torch.full((3, 4, 4), 2.0)}], {}, ValueError, r"expected floats in \[0, 1\], got \[2, 2\]"),
        ([{"image": red(4, 4), "s": "sea"}], {"label": "s"}, ValueError, "label of item 0: expected a whole number"),
    ],
)
def test_what_does_not_fit_is_named(items, options, error, text) -> None:
    with pytest.raises(error, match=text):
        background_bank(items, 4, **options)


@pytest.mark.parametrize(
    ("labels", "limit", "warned"), [("aaab", 3, True), ("abab", 3, False), ("aaa", 4, False), ("ab", 1, False)]
)
def test_a_limit_that_sees_one_label_is_told(labels, limit, warned) -> None:
    items = [{"image": red(4, 4), "label": "ab".index(label)} for label in labels]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        background_bank(items, 4, label="label", limit=limit)
    assert any(f"the first {limit} items are all of label 0" in str(one.message) for one in caught) is warned
