"""Waterbirds as published, written small."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from small_pictures import H, W, photo, save
from torch.utils.data import DataLoader

from torch_bgdebias import BatchSpec
from torch_bgdebias.data import (
    Waterbirds,
)


@pytest.fixture
def waterbirds(tmp_path):
    root = tmp_path / "waterbird_complete95_forest2water2"
    rows = []
    for i in range(6):
        name = f"{i:03d}.Gull/Gull_{i}.jpg"
        photo(root / name, i)
        cover = np.zeros((H, W), np.uint8)
        cover[5:10, 5:15] = 204
        save((tmp_path / "segmentations" / name).with_suffix(".png"), cover)
        rows.append([i + 1, name, i % 2, i // 2, (i + 1) % 2, "/o/ocean/00001.jpg"])
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["img_id", "img_filename", "y", "split", "place", "place_filename"], *rows])
    return root, tmp_path / "segmentations"


def test_waterbirds(waterbirds):
    root, masks = waterbirds
    data = Waterbirds(root, "val", masks=masks, size=(10, 15))
    assert (data.labels, data.places) == ([0, 1], [1, 0])
    batch = next(iter(DataLoader(data, batch_size=2)))
    spec = BatchSpec(background_label=3)
    assert spec.background_label_of(batch).tolist() == [1, 0]
    assert spec.mask_of(batch).shape == (2, 1, 10, 15)
    torch.testing.assert_close(Waterbirds(root, masks=masks)[0][2].max(), torch.tensor(0.8))
    image, label, place = Waterbirds(root, "test")[1]
    assert (image.shape, label, place) == ((3, H, W), 1, 0)


def test_waterbirds_trouble(waterbirds, tmp_path):
    root, masks = waterbirds
    with pytest.raises(ValueError, match=r"split: expected one of 'train', 'val', 'test', got 'dev'"):
        Waterbirds(root, "dev")
    with pytest.raises(FileNotFoundError, match=r"expected metadata.csv in it, found "):
        Waterbirds(tmp_path)
    next(masks.glob("001*/*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files are missing: .*001.Gull/Gull_1.png"):
        Waterbirds(root, masks=masks)
    assert len(Waterbirds(root)) == 2
    (root / "000.Gull/Gull_0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files are missing: .*Gull_0.jpg"):
        Waterbirds(root)
    (root / "metadata.csv").write_text("img_filename,y,split\na.jpg,0,0\n")
    with pytest.raises(ValueError, match=r"expected the columns \['img_filename', 'place', 'split', 'y'\]"):
        Waterbirds(root)
    (root / "metadata.csv").write_text("img_filename,y,split,place\na.jpg,0,0,0\n")
    with pytest.raises(ValueError, match=r"has no sample of 'test'"):
        Waterbirds(root, "test")


@pytest.mark.parametrize(
    ("change", "encoding"),
    [
        (lambda text: text.replace(",", ";"), "utf-8"),
        (lambda text: text.replace(",", "\t"), "utf-16"),
        (lambda text: text.replace("\n", "\r\n").replace(",", ", "), "utf-8-sig"),
        (lambda text: text.replace("img_filename", "IMG_FILENAME").replace("Gull/", "Gull\\"), "utf-8"),
        (lambda text: text.replace(",000.", ",/000."), "utf-8"),
        (lambda text: text.replace(".jpg,1,0,", ".jpg,1,training,"), "utf-8"),
    ],
    ids=["semicolons", "tabs, UTF-16", "blanks, CRLF", "capitals, backslashes", "leading slash", "words"],
)
def test_tables_as_other_programs_write_them(waterbirds, change, encoding):
    root, masks = waterbirds
    table = root / "metadata.csv"
    text = table.read_bytes().decode().replace("\r\n", "\n")
    expected = Waterbirds(root, masks=masks)
    table.write_bytes(change(text).encode(encoding))
    data = Waterbirds(root, masks=masks)
    assert (data.images, data.masks, data.labels, data.places) == (
        expected.images,
        expected.masks,
        expected.labels,
        expected.places,
    )


def test_tables_that_cannot_be_read_are_named(waterbirds):
    root, _ = waterbirds
    table = root / "metadata.csv"
    text = table.read_text()
    table.write_text(text.replace("Gull_0.jpg,0,", "Gull_0.jpg,7,"))
    with pytest.raises(ValueError, match=r"row 2, column y: expected a class \(0 landbird, 1 waterbird\), got '7'"):
        Waterbirds(root)
    for number in ("inf", "nan", "0.5", "-1"):
        table.write_text(text.replace("Gull_0.jpg,0,", f"Gull_0.jpg,{number},"))
        with pytest.raises(ValueError, match=rf"metadata.csv, row 2, column y: expected a whole number.*'{number}'"):
            Waterbirds(root)
    table.write_text(text + "x" * 200_000)
    with pytest.raises(ValueError, match=r"metadata.csv: expected a table \(CSV\), got a damaged one: field larger"):
        Waterbirds(root)
    table.write_bytes(text.replace("Gull_0", "Gül").encode("latin-1"))
    with pytest.raises(ValueError, match=r"metadata.csv: expected text in UTF-8, got other bytes"):
        Waterbirds(root)
    table.write_text("# written by hand\n" + text)
    with pytest.raises(ValueError, match=r"expected the columns .* and lines below, got \['# written by hand'\]"):
        Waterbirds(root)
