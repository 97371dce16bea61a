"""`bgdebias masks --with ...`: makers from the command line, their licences, and what is said of doubtful masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.cli import main
from torch_bgdebias.data import MaskedImageFolder


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("cat/a", "dog/b")):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[4:10, 3 : 9 + i] = (250, 0, 0)
        pixels[pixels.sum(2) == 0] = (0, 0, 250)
        (tmp_path / f"data/images/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"data/images/{name}.png")
    (tmp_path / "boxes.csv").write_text("image,left,top,right,bottom\ncat/a.png,3,4,6,10\ndog/b.png,3,4,10,10\n")
    return tmp_path


def test_an_onnx_file_with_boxes(place, capsys):
    pytest.importorskip("onnxruntime")
    small = pytest.importorskip("small_mask_models")
    pytest.importorskip("onnx")
    small.save_onnx(place / "isnet.onnx", gain=6.0)
    words = ["masks", "data", "data/masks", "--with", "onnx:isnet.onnx", "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "licence of onnx:isnet.onnx: unknown (see where isnet.onnx comes from)" in printed.err
    assert "2 masks written to data/masks" in printed.out
    assert "confidence: median" in printed.out
    inside = [float((mask > 0.5).sum()) for _, _, mask in MaskedImageFolder("data")]
    assert inside == [36.0, 42.0]
    assert main([*words, "--boxes", "boxes.csv"]) == 1
    assert "holds 2 of 2 masks by onnx:isnet.onnx" in capsys.readouterr().err
    assert main([*words, "--boxes", "boxes.csv", "--overwrite", "--threshold", "0.5"]) == 0
    assert [float(mask.sum()) for _, _, mask in MaskedImageFolder("data")] == [18.0, 42.0]
    written = json.loads((place / "data/masks/masks.json").read_text())
    assert written["settings"] == {"prompt": None, "boxes": "boxes.csv", "threshold": 0.5}


def test_boxes_as_masks_and_functions(place, capsys):
    assert main(["masks", "data", "out", "--with", "boxes:boxes.csv"]) == 0
    assert np.asarray(Image.open("out/cat/a.png")).sum() == 255 * 18
    (place / "my_masks.py").write_text("def faint(images):\n    return images[:, 0] * 0.3\n")
    assert main(["masks", "data", "faint", "--with", "my_masks:faint"]) == 0
    printed = capsys.readouterr().out
    assert "2 masks are empty: cat/a.png, dog/b.png" in printed
    assert "below 0.5: 2" in printed
    assert "look at these first: cat/a.png 0.00, dog/b.png 0.00" in printed


def test_errors_are_one_line(place, capsys):
    for words, text in (
        (["--with", "magic"], "--with: expected grabcut, boxes:FILE"),
        (["--with", "onnx:nowhere.onnx"], "--with onnx:nowhere.onnx: there is no such file"),
        (
            ["--with", "grabcut", "--boxes", "nowhere.csv"],
            "--boxes: expected a file or folder, found",
        ),
        (["--with", "grabcut", "--checkpoint", "data"], "checkpoint: expected none with grabcut"),
    ):
        assert main(["masks", "data", "other", *words]) == 1
        assert text in capsys.readouterr().err
