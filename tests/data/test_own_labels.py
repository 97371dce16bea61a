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


def test_instances_of_a_few_pixels_have_numbers_too(tmp_path):
    """Without their numbers the others were no instances any more, and every folder of cells was warned of."""

    def write(path, name, i):
        instances = np.kron(np.where(FIRST, 1, np.where(SECOND, 3, 0)), np.ones((8, 8)))
        instances[0, :4] = 2
        save(instances.astype(np.uint8), path.with_suffix(".png"))
        Image.new("RGB", instances.shape[::-1]).save(tmp_path / f"images/{name}/{i}.png")

    build(tmp_path, write)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MaskedImageFolder(tmp_path)[0][2].sum() == 64 * (FIRST.sum() + SECOND.sum()) + 4


@pytest.mark.parametrize("foreground", [{"1": "10", "2": 13}, {1: [10], 2: ["13"]}])
def test_one_label_stands_for_a_list_and_a_number_for_a_name(tmp_path, foreground):
    """The text "10" was read as the labels 1 and 0."""
    root = build(tmp_path, lambda path, name, i: WRITERS["numbers"](path, {"1": "cow", "2": "horse"}[name], i), "12")
    data = MaskedImageFolder(root, foreground=foreground, void=[255])
    for _, _, mask in data:
        np.testing.assert_array_equal(mask[0].numpy() > 0.5, FIRST)
    with pytest.raises(ValueError, match=r"got those of 1, 3; not in both: 2, 3"):
        MaskedImageFolder(root, foreground={1: [10], 3: [13]})


def test_a_message_says_how_many_classes_it_leaves_out(tmp_path):
    classes = [f"class{number:02d}" for number in range(42)]

    def write(path, name, i):
        index = np.where(FIRST, 10 + classes.index(name), np.where(SECOND, 99, 0))
        save(index.astype(np.uint8), path.with_suffix(".png"))

    with pytest.raises(MaskEncodingError, match=r"class39=49'\), and of 2 classes more$"):
        MaskedImageFolder(build(tmp_path, write, classes, 2))
