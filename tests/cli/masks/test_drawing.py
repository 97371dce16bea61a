"""`bgdebias masks convert`: masks of annotations, with the pictures and without them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.cli import main


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    square = [3, 2, 9, 2, 9, 6, 3, 6]
    content = {
        "images": [
            {"id": 1, "file_name": "cat/a.jpg", "height": 20, "width": 30},
            {"id": 2, "file_name": "../b.jpg", "height": 20, "width": 30},
        ],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [square]}],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    return tmp_path


def test_without_the_pictures(place, capsys):
    assert main(["masks", "convert", "all.json", "--to", "out"]) == 0
    printed = capsys.readouterr().out
    assert "2 masks written to out" in printed
    assert "1 of them hold no object: ../b.jpg" in printed
    mask = np.asarray(Image.open(place / "out/cat/a.png"))
    assert mask.shape == (20, 30)
    assert mask.sum() == mask[2:6, 3:9].sum() == 24
    assert (place / "out/b.png").exists(), "never out of the folder"
    assert main(["masks", "convert", "all.json", "--to", "out"]) == 0
    assert "0 masks written to out, 2 kept as they were" in capsys.readouterr().out


def test_sizes_that_only_the_pictures_know(place, capsys):
    (place / "yolo").mkdir()
    (place / "yolo/a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n")
    assert main(["masks", "convert", "yolo", "--to", "out"]) == 1
    assert "a: expected annotations that say the picture's size; give --images IMAGES" in capsys.readouterr().err
    (place / "images").mkdir()
    Image.new("RGB", (40, 20)).save(place / "images/a.png")
    assert main(["masks", "convert", "yolo", "--to", "drawn", "--images", "images"]) == 0
    assert np.asarray(Image.open(place / "drawn/a.png")).sum() == 16 * 8


def test_wrong_use(place, capsys):
    assert main(["masks", "convert", "all.json"]) == 1
    assert "expected: bgdebias masks convert FROM --to DIR" in capsys.readouterr().err
    assert main(["masks", "images", "masks", "--to", "out"]) == 1
