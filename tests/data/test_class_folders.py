"""What a path is that was given where a folder with ``images/`` is expected: named, with what to do."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias import cli
from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.data.class_folders import folder_names

NAMES = ("cat", "dog")


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "set"
    for part in ("images", "masks"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(root / part / name / "0.png")
    return root


def archive(data):
    return shutil.make_archive(str(data.parent / "set"), "tar", data)


def shards(data):
    place = data.parent / "shards"
    place.mkdir()
    shutil.move(archive(data), place / "000000.tar")
    return place


def a_list(data):
    path = data / "set.jsonl"
    path.write_text('{"image": "images/cat/0.png", "mask": "masks/cat/0.png", "label": "cat"}\n')
    return path


def parquet(data):
    (data.parent / "parquet").mkdir()
    (data.parent / "parquet/train-0.parquet").write_bytes(b"PAR1")
    return data.parent / "parquet"


def parts(data):
    for name in ("train", "val"):
        shutil.copytree(data, data.parent / "parts" / name)
    return data.parent / "parts"


def renamed(data):
    (data / "images").rename(data / "Images")
    return data


def flat(data):
    for i, path in enumerate(sorted((data / "images").rglob("*.png"))):
        path.rename(data / "images" / f"{i}.png")
    return emptied(data)


def with_backslashes(data):
    for path in sorted((data / "images").rglob("*.png")):
        path.rename(data / "images" / f"{path.parent.name}\\0.png")
    return emptied(data)


def emptied(data):
    for name in ("cat", "dog"):
        (data / "images" / name).rmdir()
    return data


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (archive, r"got an archive; unpack it; webdataset's shards are read in Python: MaskedStream"),
        (shards, r"it holds 000000.tar; unpack it; webdataset's shards are read in Python"),
        (a_list, r"got a table; tables and lists of files are read in Python: MaskedItems"),
        (parquet, r"it holds train-0.parquet; tables and lists of files are read in Python"),
        (parts, r"it holds train, val; give one of its parts: .*train"),
        (renamed, r"'Images' differs from 'images' in capitals or blanks only: rename it"),
        (lambda data: data / "images", r"if it is the folder of images itself, give .*set"),
        (flat, r"found none, but 2 pictures \(0.png, 1.png\): move them into folders of classes"),
        (with_backslashes, r"2 pictures whose names hold backslashes \(cat\\0.png, dog\\0.png\)"),
    ],
)
def test_what_is_no_folder_of_classes_is_named(data, place, text, capsys):
    given = place(data)
    with pytest.raises(FileNotFoundError, match=text):
        MaskedImageFolder(given)
    if place not in (flat, with_backslashes):
        assert cli.main(["probe", "--model", "nowhere:net", "--data", str(given)]) == 1
        assert "--data: " in (said := capsys.readouterr().err)
        assert re.search(text, said)


@pytest.mark.parametrize("masks", ["truth/masks", "annotations/instances.json", "annotations"])
def test_a_folder_that_holds_masks_alone_is_no_class(data, masks):
    """It was one where the masks lay deeper in it, and the labels of all others went up by one."""
    place = data / masks
    place.parent.mkdir(exist_ok=True)
    if masks == "truth/masks":
        (data / "masks").rename(place)
    else:
        shutil.rmtree(data / "masks")
        entries = [{"id": i, "file_name": f"{name}/0.png", "height": 8, "width": 8} for i, name in enumerate(NAMES)]
        outlines = [
            {"id": i, "image_id": i, "category_id": i, "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]} for i in (0, 1)
        ]
        categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
        content = {"images": entries, "annotations": outlines, "categories": categories}
        (data / "annotations").mkdir(exist_ok=True)
        (data / "annotations/instances.json").write_text(json.dumps(content))
    for name in NAMES:
        (data / "images" / name).rename(data / name)
    (data / "images").rmdir()
    folder = MaskedImageFolder(data, masks=place)
    assert folder.classes == list(NAMES)
    assert [sample.label for sample in folder.samples] == [0, 1]
    (data / "cat" / "more").mkdir()
    shutil.move(data / "cat" / "0.png", data / "cat" / "more" / "0.png")
    (data / "cat" / "a.json").write_text("{}")
    assert "cat" in folder_names(data, data / "cat" / "a.json"), "a class that holds pictures, too"
