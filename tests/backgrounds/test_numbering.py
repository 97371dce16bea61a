"""A bank's categories are classes of the same names, and what does not fit is said."""

from __future__ import annotations

import warnings

import pytest
import torch

from torch_bgdebias import BackgroundBank
from torch_bgdebias.backgrounds.numbering import numbered_as
from torch_bgdebias.backgrounds.pool import as_pool
from torch_bgdebias.data import make_variant

NAMES = ["cow", "ship"]


def bank(classes=None):
    """Category 0 is dark, 1 bright."""
    pixels = torch.tensor([10, 240], dtype=torch.uint8).repeat(3)[:, None, None, None].expand(6, 3, 8, 8).contiguous()
    return BackgroundBank(pixels, torch.tensor([0, 1] * 3), classes=classes)


def said_of(classes, names, needed=("mixed_same", "mixed_next")):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        pool = numbered_as(as_pool(bank(classes)), names, needed, option="class_names=", stacklevel=1)
    return pool.labels.tolist()[:2], [str(one.message) for one in heard]


@pytest.mark.parametrize(
    ("classes", "names", "labels", "text"),
    [
        (NAMES, NAMES, [0, 1], ""),
        (["Ship", " COW "], NAMES, [1, 0], ""),
        (["ship", "sea"], NAMES, [1, 3], "1 of 2 classes (cow) are called like none"),
        (["lake", "sea"], NAMES, [2, 3], "none of the bank's categories (lake, sea)"),
        (NAMES, [], [0, 1], "category 0 counts as class 0"),
        (None, NAMES, [0, 1], ""),
    ],
)
def test_names_decide_and_what_does_not_fit_is_said(classes, names, labels, text):
    numbers, heard = said_of(classes, names)
    assert numbers == labels
    assert len(heard) == bool(text)
    assert all(text in one for one in heard)
    assert said_of(classes, names, needed=())[1] == []


def brightness(source, name, **options):
    """Of the backgrounds that a cow and a ship get."""
    image, mask = torch.full((2, 3, 8, 8), 0.5), torch.zeros(2, 1, 8, 8)
    mask[:, :, 3:5, 3:5] = 1
    variant = make_variant(image, mask, torch.tensor([0, 1]), name, backgrounds=source, **options)
    return [round(float(shown[0, 0, 0]) * 255) for shown in variant.image], variant


def test_variants_go_by_the_names_of_a_bank():
    """Category 0 stood behind class 0 whatever either was called."""
    assert brightness(bank(["ship", "cow"]), "mixed_same", class_names=NAMES)[0] == [240, 10]
    assert brightness(bank(["ship", "cow"]), "mixed_next", class_names=NAMES)[0] == [10, 240]
    assert brightness(bank(), "mixed_same", class_names=NAMES)[0] == [10, 240]
    with pytest.warns(UserWarning, match=r"bank's categories have names \(ship, cow\) and the images' classes none"):
        assert brightness(bank(["ship", "cow"]), "mixed_same")[0] == [10, 240]
    with pytest.warns(UserWarning, match=r"1 of 2 classes \(cow\)"):
        shown, variant = brightness(bank(["ship", "sea"]), "mixed_same", class_names=NAMES)
    assert shown == [128, 10]
    assert variant.valid.tolist() == [False, True]
    own = bank(["ship", "cow"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert brightness(own, "mixed_same", background_labels=own.labels)[0] == [10, 240]
        variant = brightness(bank(["lake", "sea"]), "mixed_rand", class_names=NAMES)[1]
    assert variant.background_label.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"class_names": "cow"}, TypeError, "class_names: expected names of the classes 0, 1, ..., got 'cow'"),
        ({"class_names": NAMES, "num_classes": 3}, ValueError, "class_names: expected 3, as num_classes, got 2"),
    ],
)
def test_bad_names_are_named(options, error, text):
    with pytest.raises(error, match=text):
        brightness(bank(NAMES), "mixed_same", **options)
