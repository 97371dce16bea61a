"""The demo's data: which folders serve, how they are divided and put together."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_folders import SMALL, error_of, write_objects, write_scenes
from PIL import Image

from torch_bgdebias import cli
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.cli.demo import data as _demo_data
from torch_bgdebias.data import MaskedTensors


def write_mnist(root: Path, each: int = 6) -> Path:
    root.mkdir()
    labels = np.repeat(np.arange(10, dtype=np.uint8), each)
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 4:24, 10:18] = 200
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (root / f"t10k-{name}.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return root


def test_mnist_files_are_foregrounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--foregrounds", str(write_mnist(tmp_path / "mnist")), "--methods", "baseline", *SMALL]
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *argv]) == 0
    result = json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))
    assert result["data"]["classes"] == [str(i) for i in range(10)]
    assert result["data"]["counts"]["test_objects"] == 10
    assert "baseline" in capsys.readouterr().out


def test_the_most_populated_categories_are_taken_in_the_order_of_their_names() -> None:
    scenes = _demo_data.Scenes(
        torch.zeros(14, 3, 4, 4),
        torch.tensor([0] * 2 + [1] * 5 + [2] * 3 + [3] * 4),
        ("few", "most", "some", "many"),
        "",
    )
    notes: list[str] = []
    labels, categories = _demo_data._assign_scenes(scenes, "xyz", notes)
    assert categories == ("most", "some", "many")
    assert labels.tolist() == [-1] * 2 + [0] * 5 + [1] * 3 + [2] * 4
    assert notes == []


def test_fewer_categories_than_classes_are_divided_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, scenes = write_objects(tmp_path / "o", classes=3), write_scenes(tmp_path / "s", {"a": 4, "b": 9})
    argv = ["--foregrounds", str(objects), "--backgrounds", str(scenes), "--methods", "baseline", *SMALL]
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *argv]) == 0
    assert "3 classes but only 2 categories" in capsys.readouterr().err
    data = json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))["data"]
    assert data["categories"] == ["a", "b", "b"]
    assert len(data["notes"]) == 1


def test_unreadable_and_empty_images_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 6, "b": 6, "c": 6})
    (objects / "images" / "class0" / "0.png").write_bytes(b"not a picture")
    (scenes / "a" / "0.png").write_bytes(b"\x89PNG broken")
    Image.new("L", (30, 20)).save(objects / "masks" / "class1" / "1.png")
    argv = ["--foregrounds", str(objects), "--backgrounds", str(scenes), "--methods", "baseline", *SMALL]
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *argv]) == 0
    err = capsys.readouterr().err
    assert "note: --foregrounds: " in err
    assert "mask is empty" in err
    assert err.count("skipped 1 of 18 images") == 2
    assert err.count("0.png") >= 2
    counts = json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))["data"]["counts"]
    assert counts["training_objects"] + counts["test_objects"] == 16
    assert counts["training_scenes"] + counts["test_scenes"] == 17


def test_folders_that_will_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 4, "b": 4, "c": 4})
    absent, empty = str(tmp_path / "absent"), tmp_path / "empty"
    empty.mkdir()
    given = ["--foregrounds", str(objects), *out]
    assert "--foregrounds: expected a file or folder" in error_of(["--foregrounds", absent, *out], capsys)
    assert "images/<class>/ and masks/<class>/" in error_of(["--foregrounds", str(empty), *out], capsys)
    assert "--backgrounds: expected a file or folder" in error_of([*given, "--backgrounds", absent], capsys)
    assert "--backgrounds: expected <category>/*.jpg" in error_of([*given, "--backgrounds", str(empty)], capsys)
    flat = error_of([*given, "--backgrounds", str(scenes / "a")], capsys)
    assert "a folder for each category" in flat
    single = write_scenes(tmp_path / "one", {"a": 8})
    assert "at least 2 categories" in error_of([*given, "--backgrounds", str(single)], capsys)
    thin = write_scenes(tmp_path / "thin", {"a": 4, "b": 4, "c": 1})
    assert "scenes: expected at least 2 of 'c'" in error_of([*given, "--backgrounds", str(thin)], capsys)


def test_a_folder_without_masks_lists_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = write_objects(tmp_path / "o")
    for mask in (objects / "masks").rglob("*.png"):
        mask.unlink()
    err = error_of(["--foregrounds", str(objects), "--out", str(tmp_path / "out")], capsys)
    assert "18 of 18 images have no mask" in err
    assert "masks/class0/0.png" in err


def test_one_class_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = write_objects(tmp_path / "o", classes=1)
    err = error_of(["--foregrounds", str(objects), "--out", str(tmp_path / "out")], capsys)
    assert "at least 2 classes" in err


def test_correlation_decides_how_often_a_scene_is_of_the_own_category() -> None:
    n, k = 600, 3
    labels = torch.arange(n) % k
    objects = MaskedTensors(
        torch.full((n, 3, 16, 16), 255, dtype=torch.uint8), labels, torch.zeros(n, 1, 16, 16, dtype=torch.uint8)
    )
    scenes = torch.arange(k, dtype=torch.uint8).view(k, 1, 1, 1).expand(k, 3, 16, 16).contiguous()
    bank = BackgroundBank(scenes, torch.arange(k))
    for correlation, expected in ((1.0, 1.0), (0.0, 1 / 3), (0.5, 2 / 3)):
        composed = _demo_data.compose(objects, bank, correlation, 0, "x")
        own = (composed.images[:, 0, 0, 0].long() == labels).float().mean()
        assert float(own) == pytest.approx(expected, abs=0.07 if correlation < 1 else 0)


def test_cut_out_centres_the_object_at_its_size() -> None:
    image, mask = torch.zeros(3, 40, 60), torch.zeros(1, 40, 60)
    image[:, 2:16, 40:54] = 1
    mask[:, 2:16, 40:54] = 1
    cut = _demo_data.cut_out(image, mask, 32)
    assert cut is not None
    rows = (cut[1][0] > 127).any(1).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1])) == (2, 29)
    assert torch.equal(cut[0][0], cut[1][0])
    assert _demo_data.cut_out(image, torch.zeros_like(mask), 32) is None


def test_objects_are_used_equally_often() -> None:
    drawn = _demo_data._balanced_positions(torch.arange(7) + 3, 24, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=10)[3:]
    assert len(drawn) == 24
    assert int(counts.max() - counts.min()) <= 1
