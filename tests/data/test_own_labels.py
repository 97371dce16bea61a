"""Masks with several objects in a picture: what is asked for, and that each class then gets its own."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
from mask_encoders import VOC_PALETTE, coloured, paletted, save
from PIL import Image

from torch_bgdebias.cli.arguments import foreground_labels
from torch_bgdebias.data import FolderSettings, MaskedImageFolder, MaskEncoding, MaskEncodingError

FIRST, SECOND = np.zeros((20, 24), bool), np.zeros((20, 24), bool)
FIRST[3:9, 3:11] = SECOND[11:17, 12:20] = True
#: VOC's numbers
COW, HORSE, PERSON = 10, 13, 15


def build(root, write, classes=("cow", "horse"), n=10):
    """``write(path without ending, class, number)`` writes a mask."""
    for k, name in enumerate(classes):
        for part in ("images", "masks"):
            (root / part / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.random.default_rng(10 * k + i).integers(60, 200, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"images/{name}/{i}.png")
            write(root / f"masks/{name}/{i}", name, i)
    return root


def index_map(name, i):
    """The class's own object, beside another class's in every third picture and a person in every second."""
    own, other = (COW, HORSE) if name == "cow" else (HORSE, COW)
    index = np.where(FIRST, own, 0)
    index[0] = 255
    index = np.where(SECOND & (i % 3 == 0), other, index)
    index[18, 2:8] = PERSON if i % 2 else 0
    return index.astype(np.uint8)


WRITERS = {
    "numbers": lambda path, name, i: save(index_map(name, i), path.with_suffix(".png")),
    "palette": lambda path, name, i: paletted(index_map(name, i), VOC_PALETTE, path.with_suffix(".png")),
    "colours": lambda path, name, i: save(
        np.array(VOC_PALETTE, np.uint8).reshape(256, 3)[index_map(name, i)], path.with_suffix(".png")
    ),
}


@pytest.mark.parametrize("kind", list(WRITERS))
def test_other_objects_beside_a_class_s_own_are_not_joined_in_silence(tmp_path, kind):
    """The error says what to pass, and what it says gives each class its own object."""
    root = build(tmp_path, WRITERS[kind])
    with pytest.raises(MaskEncodingError, match=r"masks hold several labels in a picture \(cow/\d.png: ") as caught:
        MaskedImageFolder(root)
    foreground = json.loads(re.search(r"foreground=(\{.*?\}) ", str(caught.value)).group(1))
    assert foreground_labels(re.search(r"--foreground '(.*?)'", str(caught.value)).group(1)) == {
        name: [str(label) for label in of_class] for name, of_class in foreground.items()
    }
    if kind != "colours":
        assert foreground == {"cow": [COW], "horse": [HORSE]}
    data = MaskedImageFolder(root, foreground=foreground, with_void=True)
    assert data.has_void
    for i in range(len(data)):
        np.testing.assert_array_equal(data[i].mask[0].numpy() > 0.5, FIRST)
        assert data[i].void[0, 0].all()
    together = MaskedImageFolder(root, encoding="colour" if kind == "colours" else "index", with_void=False)
    assert together[0][2].sum() == FIRST.sum() + SECOND.sum()
    assert together[1][2].sum() == FIRST.sum() + 6


def test_labels_that_say_nothing_of_classes_are_a_warning(tmp_path):
    """The same two labels in every mask: parts, or a class and another one."""

    def write(path, name, i):
        save(np.where(FIRST, np.where(np.arange(24) < 7, 10, 13), 0).astype(np.uint8), path.with_suffix(".png"))

    text = (
        r"masks hold several labels in a picture \(cow/0.png: 10, 13\): all but background and void are taken for one"
    )
    with pytest.warns(UserWarning, match=text):
        data = MaskedImageFolder(build(tmp_path, write))
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, FIRST)


@pytest.mark.parametrize("numbers", [(1, 2, 3), (7,)])
def test_instances_and_single_labels_are_read_in_silence(tmp_path, numbers):
    def write(path, name, i):
        in_columns = np.array(numbers)[np.minimum(np.arange(24) // 3 % (1 + i % 3), len(numbers) - 1)]
        save(np.where(FIRST, in_columns, 0).astype(np.uint8), path.with_suffix(".png"))

    build(tmp_path, write)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MaskedImageFolder(tmp_path)[0][2].sum() == FIRST.sum()


def test_coloured_instances_are_taken_together(tmp_path):
    def write(path, name, i):
        picture = coloured(FIRST, (200, 10 * i, 30))
        picture[SECOND] = (30, 200, 10 * i)
        save(picture, path.with_suffix(".png"))

    with pytest.warns(UserWarning, match="several labels in a picture"):
        data = MaskedImageFolder(build(tmp_path, write))
    np.testing.assert_array_equal(data[3][2][0].numpy() > 0.5, FIRST | SECOND)


def test_foregrounds_by_class_name_all_classes(tmp_path):
    root = build(tmp_path, WRITERS["numbers"])
    with pytest.raises(
        ValueError, match=r"foreground: expected labels of each class, cow, horse, got those of cow, dog"
    ):
        MaskedImageFolder(root, foreground={"cow": [10], "dog": [12]})
    with pytest.raises(ValueError, match=r"foreground: expected it once, got it inside the MaskEncoding and beside"):
        FolderSettings(encoding=MaskEncoding("index", foreground=(1,)), foreground={"cow": [10]})
    with pytest.raises(ValueError, match=r"foreground: expected whole numbers from 0 or colours .* got 'x'"):
        FolderSettings(foreground={"cow": ["x"]})
    with pytest.raises(MaskEncodingError, match=r"horse: masks .*expected an object in some, got none with .*\[99\]"):
        MaskedImageFolder(root, foreground={"cow": [10], "horse": [99]})
    with pytest.raises(ValueError, match="masks: expected no encoding, foreground, void"):
        (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
        MaskedImageFolder(root, masks=tmp_path / "a.json", foreground={"cow": [10], "horse": [13]})
