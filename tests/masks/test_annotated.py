"""Annotation files in place of a folder of masks: the same items and errors as the masks that are drawn of them."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.cli import main
from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.masks.annotated import holds_annotations
from torch_bgdebias.masks.encodings import MaskEncodingError
from torch_bgdebias.masks.formats.outlines import AnnotationError
from torch_bgdebias.train import MaskedFolders

SIZE = (24, 30)
NAMES = ("cat/0.png", "cat/1.png", "dog/0.png")


def square(left, top, side=8):
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def coco(**changes):
    """A cat in each picture, the dog's beside a dog; a crowd in the last."""
    shapes = [(0, 1, 2, square(3, 2)), (1, 2, 2, square(9, 5)), (2, 3, 2, square(1, 1)), (3, 3, 7, square(15, 10))]
    content = {
        "images": [{"id": i, "file_name": n, "height": 24, "width": 30} for i, n in enumerate(NAMES, start=1)],
        "categories": [{"id": 2, "name": "Cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "segmentation": [flat]}
            for i, image, category, flat in shapes
        ],
    }
    crowd = {"size": list(SIZE), "counts": [0, 24, 24 * 29]}
    content["annotations"].append({"id": 9, "image_id": 3, "category_id": 7, "segmentation": crowd, "iscrowd": 1})
    return content | changes


@pytest.fixture
def place(tmp_path):
    for i, name in enumerate(NAMES):
        path = tmp_path / "data" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    (tmp_path / "all.json").write_text(json.dumps(coco()))
    return tmp_path


def test_the_items_are_those_of_the_masks_drawn_of_them(place):
    direct = MaskedImageFolder(place / "data", masks=place / "all.json", with_void=True)
    assert main(["masks", str(place / "data"), str(place / "drawn"), "--from", str(place / "all.json")]) == 0
    by_files = MaskedImageFolder(place / "data", masks=place / "drawn", with_void=True)
    for a, b in zip(direct, by_files, strict=True):
        assert all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(a, b, strict=True))
    assert direct.has_void
    assert direct.labels == [0, 0, 1]
    dog = np.zeros(SIZE, bool)
    dog[10:18, 15:23] = True
    np.testing.assert_array_equal(direct[2].mask[0].numpy() > 0, dog)
    assert direct.void(2).sum() == 24
    assert {sample.mask for sample in direct.samples} == {place / "all.json"}
    again = pickle.loads(pickle.dumps(direct))  # a loader's workers get it so
    assert torch.equal(again[2].mask, direct[2].mask)


def test_ids_follow_what_is_drawn(place):
    ids = [MaskedImageFolder(place / "data", masks=place / "all.json").image_id(i) for i in (0, 1, 2)]
    content = coco()
    content["annotations"][1]["segmentation"] = [square(8, 5)]
    (place / "all.json").write_text(json.dumps(content, indent=2))
    others = [MaskedImageFolder(place / "data", masks=place / "all.json").image_id(i) for i in (0, 1, 2)]
    assert len(set(ids)) == 3
    assert [a == b for a, b in zip(ids, others, strict=True)] == [True, False, True]


def test_labelme_beside_the_pictures(place):
    for name in NAMES:
        shape = {"label": name[:3], "points": [[2, 2], [12, 2], [12, 9], [2, 9]], "shape_type": "polygon"}
        path = (place / "data/images" / name).with_suffix(".json")
        path.write_text(json.dumps({"shapes": [shape], "imagePath": path.stem + ".png", "imageHeight": 24}))
    assert holds_annotations(place / "data/images")
    data = MaskedImageFolder(place / "data", size=24, masks=place / "data/images", min_foreground=0.05)
    assert len(data) == 3
    assert float(MaskedImageFolder(place / "data", masks=place / "data/images")[0][2].sum()) == 70
    with pytest.raises(FileNotFoundError, match=r"LabelMe: 0.json, .*; pass masks=.*images. "):
        MaskedImageFolder(place / "data")


def test_a_folder_of_masks_under_another_name(place):
    for name in NAMES:
        path = place / "elsewhere" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.pad(np.full((8, 8), 255, np.uint8), ((4, 12), (4, 18)))).save(path)
    assert float(MaskedImageFolder(place / "data", masks=place / "elsewhere")[0][2].sum()) == 64
    (place / "elsewhere/dog/0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images have no mask: .*elsewhere/dog/0.png; .*holds"):
        MaskedImageFolder(place / "data", masks=place / "elsewhere")


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (coco(annotations=[]), MaskEncodingError, r"an object in some pictures, got none in 3 .*its labels are none"),
        (coco(images=coco()["images"][:2], annotations=[]), FileNotFoundError, r"1 of 3 images .*: dog/0.png; it has"),
        (
            coco(annotations=[{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}]),
            AnnotationError,
            r"annotation 1 has a box and no outline; .*bgdebias masks IN OUT --with grabcut --boxes .*all.json",
        ),
        ({"images": 3, "annotations": []}, AnnotationError, r"all.json: expected COCO annotations, got a damaged file"),
    ],
)
def test_what_is_no_mask_says_so(place, content, error, text):
    (place / "all.json").write_text(json.dumps(content))
    with pytest.raises(error, match=text):
        MaskedImageFolder(place / "data", masks=place / "all.json")


def test_what_is_wrong_with_a_picture_is_left_out_and_counted(place):
    content = coco(images=[*coco()["images"][:2]])
    content["annotations"] = content["annotations"][:2]
    content["images"][1]["width"] = 31
    (place / "all.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="skipped 2 of 3 images"):
        data = MaskedImageFolder(place / "data", masks=place / "all.json", on_error="skip")
    assert data.skipped[0][1] == "no mask"
    assert "expected the size (24, 31) (H, W) of its annotations, got (24, 30)" in data.skipped[1][1]
    with pytest.raises(AnnotationError, match="expected the size"):
        MaskedImageFolder(place / "data", masks=place / "all.json", classes=["cat"])[1]


def test_annotations_of_the_pixels_as_stored_turn_with_the_picture(place):
    path = place / "data/images/cat/0.jpg"
    (place / "data/images/cat/0.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path, exif=exif)
    content = coco()
    content["images"][0]["file_name"] = "cat/0.jpg"
    (place / "all.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="were stored turned"):
        data = MaskedImageFolder(place / "data", masks=place / "all.json")
    image, _, mask = data[0]
    assert image.shape[1:] == mask.shape[1:] == SIZE[::-1]
    rows, columns = np.nonzero(mask[0].numpy())
    # a quarter turn to the right: the row that was y from the top is the column y from the right
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 10, 14, 21)


def test_settings_that_do_not_go_together_and_paths_that_are_nothing(place):
    for options in ({"foreground": [1]}, {"mask_suffix": "_m"}, {"encoding": "soft"}):
        with pytest.raises(ValueError, match="masks: expected no encoding, foreground, void or mask_suffix beside the"):
            MaskedImageFolder(place / "data", masks=place / "all.json", **options)
    with pytest.raises(FileNotFoundError, match="masks: expected a folder of masks, or annotations of .*, found no"):
        MaskedImageFolder(place / "data", masks=place / "nothing")
    (place / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="found neither"):
        MaskedImageFolder(place / "data", masks=place / "empty")


def test_commands_take_annotations(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    model = ["--model", "timm:test_resnet", "--size", "32", "--device", "cpu", "--masks", "all.json", "--data", "data"]
    assert main(["probe", *model, "--attributions", "", "--out", "report"]) == 0
    assert (place / "report/report.html").exists()
    assert main(["variants", "data", "out", "--names", "only_fg", "--masks", "all.json", "--size", "24"]) == 0
    assert len(list((place / "out/only_fg").rglob("*.png"))) == 3
    assert main(["probe", *model, "--layout", "voc", "--out", "other"]) == 1
    data = MaskedFolders("data", "data", size=24, batch_size=2, masks="all.json", val_masks="all.json")
    assert float(data.val[2][2].sum()) == pytest.approx(64 * 24 / 30, abs=0.5)
