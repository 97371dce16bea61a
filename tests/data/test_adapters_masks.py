"""What the adapters do with masks that are re-saved, void or of other numbers, and with edited tables."""

from __future__ import annotations

import numpy as np
import pytest
from mask_encoders import VOC_PALETTE, paletted
from PIL import Image

from torch_bgdebias.data import ImageNetS, MaskEncodingError, VOCObjects, Waterbirds
from torch_bgdebias.masks.contents import voc_palette

INDEX = np.zeros((20, 24), np.uint8)
INDEX[5:15, 6:14] = 7  # car, whose colour is a grey
INDEX[4, 6:14] = 255


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (24, 20), "red").save(root / "JPEGImages/a.jpg")
    (root / "ImageSets/Segmentation/val.txt").write_text("a\n")
    return tmp_path, root / "SegmentationClass/a.png"


@pytest.mark.parametrize("kind", ["palette", "numbers", "colours"])
def test_voc_masks_however_they_are_saved(voc, kind):
    root, path = voc
    if kind == "palette":
        paletted(INDEX, VOC_PALETTE, path)
    else:
        Image.fromarray(INDEX if kind == "numbers" else voc_palette()[INDEX]).save(path)
    data = VOCObjects(root, image_set="val")
    assert data.labels == [6]
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0, INDEX == 7)
    np.testing.assert_array_equal(data.void(0)[0].numpy(), INDEX == 255)


def test_voc_masks_that_are_none(voc):
    root, path = voc
    Image.fromarray(np.where(INDEX[..., None] == 7, (250, 50, 83), (0, 0, 0)).astype(np.uint8)).save(path)
    with pytest.raises(MaskEncodingError, match=r"a.png \(RGB\): expected VOC's palette, .* got .*\(250, 50, 83\)"):
        VOCObjects(root, image_set="val")
    Image.fromarray(INDEX * 0).save(path)
    with pytest.raises(MaskEncodingError, match=r"expected objects in the masks of val, got none in 1"):
        VOCObjects(root, image_set="val")


def test_imagenet_s_passes_over_hidden_folders_and_keeps_what_is_ignored_apart(tmp_path):
    for k, name in enumerate(("n01", "n02")):
        for part in ("validation", "validation-segmentation"):
            (tmp_path / part / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / f"validation/{name}/x.JPEG")
        mask = np.zeros((20, 20, 3), np.uint8)
        mask[5:9, 5:9, 0] = k + 1
        mask[0, :, :2] = 1000 % 256, 1000 // 256
        Image.fromarray(mask).save(tmp_path / f"validation-segmentation/{name}/x.png")
    (tmp_path / "validation/.ipynb_checkpoints").mkdir()
    (tmp_path / "wnids.txt").write_bytes("\ufeffn01\nn02\n".encode())
    data = ImageNetS(tmp_path, categories=tmp_path / "wnids.txt")
    assert data.labels == [0, 1] == [data[i][1] for i in range(2)]
    assert data[1][2].sum() == 16
    assert data.void(1).sum() == 20
    assert ImageNetS(tmp_path, size=10).void(0).shape == (1, 10, 10)


@pytest.fixture
def birds(tmp_path):
    (tmp_path / "001.A").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "001.A/x.jpg")

    def opened(line, encoding="utf-8"):
        (tmp_path / "metadata.csv").write_bytes(f"img_filename,y,split,place\n{line}\n".encode(encoding))
        return Waterbirds(tmp_path)[0][1:]

    return opened


def test_tables_of_spreadsheets_and_pandas(birds):
    assert birds("001.A/x.jpg,0,0,1", "utf-8-sig") == (0, 1)
    assert birds("001.A/x.jpg,1.0,0,1.0") == (1, 1)
    assert birds("001.A/x.jpg,0,train,1") == (0, 1)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("001.A/x.jpg,0,0,", r"metadata.csv, row 2, column place: expected a whole number from 0, got ''"),
        ("001.A/x.jpg,0.5,0,0", r"row 2, column y: expected a whole number from 0, got '0.5'"),
        ("001.A/x.jpg,0,7,0", r"row 2, column split: expected 0 train, 1 val or 2 test, got '7'"),
        ("001.A/x.jpg,-1,0,0", r"row 2, column y: expected a whole number from 0, got '-1'"),
    ],
)
def test_tables_with_a_wrong_cell(birds, line, text):
    with pytest.raises(ValueError, match=text):
        birds(line)
