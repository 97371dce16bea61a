"""Labels in masks: which are there in earnest, and which are a class's own."""

from __future__ import annotations

import numpy as np
import pytest
from mask_encoders import INSIDE, VOC_PALETTE, coloured, labels, paletted, save

from torch_bgdebias.masks.contents import load_mask
from torch_bgdebias.masks.several import labels_within, not_numbered, own_labels, shared_labels

BIG = np.zeros((100, 100), bool)
BIG[20:70, 20:80] = True


def sets(*labels_of_masks):
    return [frozenset(labels) for labels in labels_of_masks]


def test_labels_are_read_without_background_void_and_traces(tmp_path):
    index = np.where(labels(BIG, (7, 15)) == 15, 15, labels(BIG, (7, 15)))
    index[0, :3] = 99  # three pixels of ten thousand
    index[99] = 255
    save(index.astype(np.uint8), tmp_path / "grey.png")
    paletted(index, VOC_PALETTE, tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        assert labels_within(load_mask(tmp_path / name), (255,)) == {7, 15}
        assert labels_within(load_mask(tmp_path / name), ()) == {7, 15, 255}
    colours = np.where(BIG[..., None] & (np.arange(100) > 50)[None, :, None], (0, 0, 255), coloured(BIG, (255, 0, 0)))
    save(colours.astype(np.uint8), tmp_path / "colours.png")
    assert labels_within(load_mask(tmp_path / "colours.png"), ()) == {(255, 0, 0), (0, 0, 255)}
    save(colours.astype(np.uint8), tmp_path / "lossy.jpg")
    assert labels_within(load_mask(tmp_path / "lossy.jpg"), ()) == frozenset()
    save(INSIDE.astype(np.uint8), tmp_path / "one.png")
    assert labels_within(load_mask(tmp_path / "one.png"), ()) == {1}
    assert labels_within(load_mask(tmp_path / "grey.png"), (255,), traces=True) == {7, 15, 99}


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (sets({1}, {1, 2}, {1, 2, 3}, ()), False),  # instances
        (sets({5}, {8}, {5}), False),  # one object a picture
        (sets({1}, {2}, {1, 2}), True),
        (sets({1, 3}), True),
        (sets({(255, 0, 0), (0, 255, 0)}), True),
    ],
)
def test_labels_that_are_numbered_as_instances_are(masks, expected):
    assert not_numbered(masks) is expected


def test_a_class_s_own_labels_are_in_nearly_all_of_its_masks_and_few_of_others():
    dogs = [frozenset({12, 15}) if i % 2 else frozenset({12}) for i in range(10)]
    cats = [frozenset({8, 12}) if i < 3 else frozenset({8}) for i in range(9)] + sets({15})
    own = own_labels([cats, dogs])
    assert own == [(8,), (12,)]
    assert shared_labels([cats, dogs], own) == {12, 15}
    people = sets({15}, {15, 12}, {15, 8}, {15})
    assert own_labels([cats, dogs, people]) == [(8,), (12,), (15,)]


def test_parts_instances_and_single_classes_have_no_other_objects():
    parts = [sets({1, 2}, {1, 2}), sets({3, 4}, {3, 4, 5})]  # a beak is on no other class's mask
    assert own_labels(parts) == [(1, 2), (3, 4)]
    assert shared_labels(parts, own_labels(parts)) == frozenset()
    instances = [sets({1}, {1, 2}), sets({1, 3}, {1})]
    assert own_labels(instances) == [(), ()]
    assert shared_labels(instances, [(), ()]) == frozenset()
    assert own_labels([sets({10}, {10, 13})]) == [()]
    assert own_labels([sets({10}), sets({13})]) == [(), ()]  # one mask shows nothing
