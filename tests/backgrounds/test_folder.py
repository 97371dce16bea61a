"""Folders of backgrounds: categories, cropping to cover, files that cannot be read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.backgrounds.folder import cover


def make_folder(root: Path, *, categories=("field", "sea"), count=3, size=(20, 30)) -> Path:
    rng = np.random.default_rng(0)
    for number, category in enumerate(categories):
        (root / category).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 60, (*size, 3), dtype=np.uint8) + np.uint8(90 * number)
            Image.fromarray(pixels).save(root / category / f"{i}.png")
    return root


def test_from_folder_reads_categories_and_covers(tmp_path):
    bank = BackgroundBank.from_folder(make_folder(tmp_path), (10, 10), threads=2)
    assert bank.images.shape == (6, 3, 10, 10)
    assert bank.classes == ("field", "sea")
    assert bank.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert bank.images[:3].max() < 60 <= 90 <= bank.images[3:].min()
    assert BackgroundBank.from_folder(tmp_path, 8, channels=1).images.shape == (6, 1, 8, 8)
    flat = BackgroundBank.from_folder(tmp_path / "sea", (8, 8))
    assert flat.labels is None
    assert len(flat) == 3


def test_from_folder_takes_the_categories_it_is_told(tmp_path):
    root = make_folder(tmp_path, categories=("field", "forest", "sea"))
    every = BackgroundBank.from_folder(root, 8)
    bank = BackgroundBank.from_folder(root, 8, classes=["sea", "field"])
    assert bank.classes == ("sea", "field")
    assert bank.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(bank.images, torch.cat([every.images[6:], every.images[:3]]))
    for wrong in (["lake"], []):
        with pytest.raises(ValueError, match=r"classes: expected some of the categories \['field', 'forest', 'sea'\]"):
            BackgroundBank.from_folder(root, 8, classes=wrong)


def test_cover_keeps_proportions_and_crops_the_centre(tmp_path):
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, 20:60] = 200  # exactly the square that remains
    Image.fromarray(stripes).save(tmp_path / "a.png")
    square = cover(tmp_path / "a.png", (20, 20))
    assert square[..., 1:-1].unique().tolist() == [200]  # the outermost pixels are smoothed with their neighbours
    assert square.min() > 150
    assert cover(tmp_path / "a.png", (40, 80))[0].numpy().tolist() == stripes[..., 0].tolist()
    Image.fromarray(stripes.transpose(1, 0, 2)).save(tmp_path / "b.png")
    assert torch.equal(cover(tmp_path / "b.png", (20, 20)), square.transpose(1, 2))
    tall = cover(tmp_path / "a.png", (60, 20))  # enlarged
    assert tall.shape == (3, 60, 20)
    assert tall[..., 1:-1].unique().tolist() == [200]


def test_large_jpegs_are_read_at_a_fraction_and_look_the_same(tmp_path):
    y, x = np.mgrid[0:600, 0:900]
    Image.fromarray(np.stack([y % 256 // 2, x % 256 // 2, (x + y) // 6], -1).astype(np.uint8)).save(tmp_path / "a.jpg")
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    small, exact = (cover(tmp_path / name, (60, 90)).float() for name in ("a.jpg", "a.png"))
    assert (small - exact).abs().mean() < 3


def test_unreadable_files_are_named_and_raised_or_skipped(tmp_path):
    make_folder(tmp_path)
    good = (tmp_path / "sea" / "1.png").read_bytes()
    (tmp_path / "sea" / "1.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "field" / "0.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"unreadable image file .*0\.png"):
        BackgroundBank.from_folder(tmp_path, 8)
    with pytest.warns(UserWarning, match=r"skipped 2 of 6 images: .*0\.png.*1\.png"):
        bank = BackgroundBank.from_folder(tmp_path, 8, on_error="skip")
    assert bank.labels.tolist() == [0, 0, 1, 1]
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with (
        pytest.raises(ValueError, match="root: expected readable images, got 6 that are not"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        BackgroundBank.from_folder(tmp_path, 8, on_error="skip")


def test_empty_and_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: expected <category>/\*.jpg in .*, got an empty folder"):
        BackgroundBank.from_folder(tmp_path, 8)
    with pytest.raises(FileNotFoundError, match="which is not there"):
        BackgroundBank.from_folder(tmp_path / "nowhere", 8)
    make_folder(tmp_path)
    (tmp_path / "void").mkdir()
    with pytest.raises(FileNotFoundError, match=r"got none in \['void'\]"):
        BackgroundBank.from_folder(tmp_path, 8)
    assert BackgroundBank.from_folder(tmp_path, 8, on_error="skip").classes == ("field", "sea", "void")
    with pytest.raises(ValueError, match="on_error: expected one of 'raise', 'skip', got 'ignore'"):
        BackgroundBank.from_folder(tmp_path, 8, on_error="ignore")
    with pytest.raises(ValueError, match=r"size: expected a positive int or \(H, W\)"):
        BackgroundBank.from_folder(tmp_path, 0)


def test_real_scenes(shared_data):
    bank = BackgroundBank.from_folder(shared_data("sun_scenes"), (32, 32))
    assert len(bank) == 1958
    assert bank.num_classes == 17
    assert bank.images.float().std() > 30
