from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from torch_bgdebias.concepts import ConceptSamples
from torch_bgdebias.data import ConceptImages
from torch_bgdebias.masks.contents import voc_palette
from torch_bgdebias.masks.formats.outlines import AnnotationError
from torch_bgdebias.masks.formats.voc import VOC_CLASSES

SIZE = (40, 50)


def picture(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(path)


def outline(top: int, left: int, bottom: int, right: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.fixture
def coco(tmp_path):
    """One picture with two dogs and a sofa, one with a speck of a dog, one that nothing is said of."""
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "val2017" / name)
    things = [
        (1, 18, [outline(2, 3, 12, 13)], 0), (1, 18, [[20, 20, 40, 20, 20, 36]], 0),
        (1, 63, [outline(20, 0, 40, 18)], 0),
        (1, 18, {"size": list(SIZE), "counts": [SIZE[0] * 45, SIZE[0] * 5]}, 1), (2, 18, [outline(1, 1, 3, 3)], 0),
    ]  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "height": 40, "width": 50} for i, n in ((1, "a"), (2, "b"))],
        "categories": [{"id": 18, "name": "dog"}, {"id": 63, "name": "couch"}, {"id": 5, "name": "kite"}],
        "annotations": [
            {"id": k, "image_id": image, "category_id": category, "segmentation": shape, "iscrowd": crowd}
            for k, (image, category, shape, crowd) in enumerate(things)
        ],
    }
    path = tmp_path / "instances_val2017.json"
    path.write_text(json.dumps(content))
    return tmp_path / "val2017", path


def test_a_picture_is_there_once_for_each_of_its_categories(coco):
    data = ConceptImages(*coco, with_void=True)
    assert data.classes == ("couch", "dog")
    assert [(path.name, label) for path, label in zip(data.images, data.labels, strict=True)] == [
        ("a.png", 0), ("a.png", 1),
    ]  # fmt: skip
    assert (data.skipped, data.left_out) == (1, 1)  # c.png; the speck in b.png
    sofa, dogs = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    sofa[20:40, :18] = True
    dogs[2:12, 3:13] = True
    triangle = np.add.outer(np.arange(40) / 16 - 20 / 16, np.arange(50) / 20 - 1) < 1
    dogs |= triangle & (np.arange(40) >= 20)[:, None] & (np.arange(50) >= 20)
    for item, expected in zip(data, (sofa, dogs), strict=True):
        assert (item.mask[0].numpy() > 0.5).astype(int) == pytest.approx(expected.astype(int), abs=1)
        assert abs(int((item.mask[0] > 0.5).sum()) - int(expected.sum())) < 20  # the triangle's slanted edge
        assert bool((item.void[0, :, 45:] > 0.5).all())
        assert not bool((item.void[0, :, :45] > 0.5).any())


def test_boxes_take_the_place_of_outlines(coco):
    data = ConceptImages(*coco, boxes=True, classes=["dog"])
    boxes = np.zeros(SIZE, bool)
    boxes[2:12, 3:13] = boxes[20:36, 20:40] = True
    mask = data[0][2][0].numpy() > 0.5
    assert data.labels == [0]
    assert int((mask != boxes).sum()) <= 36  # a row and a column of the triangle's box at most
    assert mask[20:34, 20:38].all()


def test_coverage_and_classes_choose(coco):
    every = ConceptImages(*coco, coverage=None)
    assert [path.name for path in every.images] == ["a.png", "a.png", "b.png"]
    assert ConceptImages(*coco, coverage=(0.0, 0.01)).images[0].name == "b.png"
    assert ConceptImages(*coco, classes=["DOG", "couch"]).labels == [0, 1]
    with pytest.raises(AnnotationError, match=r"expected objects of dog that cover 90 to 100 %.*2 cover other shares"):
        ConceptImages(*coco, classes=["dog"], coverage=(0.9, 1.0))
    with pytest.raises(AnnotationError, match=r"expected objects of zebra .*whose labels are couch, dog"):
        ConceptImages(*coco, classes=["zebra"])
    with pytest.raises(ValueError, match="coverage: expected two shares, the smaller one first"):
        ConceptImages(*coco, coverage=(0.6, 0.1))
    with pytest.raises(FileNotFoundError, match="expected pictures in it"):
        ConceptImages(coco[0].parent / "none", coco[1])


def test_items_are_concept_samples(coco):
    data = ConceptImages(*coco, size=(20, 25))
    image, label, mask = default_collate([data[i] for i in range(len(data))])
    samples = ConceptSamples(image, mask, label)
    share = (mask > 0.5).float().mean((1, 2, 3))
    chosen = samples.covering(float(share.min()) + 1e-3, 1.0)
    assert torch.equal(chosen.concepts, label[share > share.min()])
    with pytest.raises(ValueError, match="no concept covers 90 to 95 %"):
        samples.covering(0.9, 0.95)
    with pytest.raises(ValueError, match="the smaller share first"):
        samples.covering(0.9, 0.5)


def test_vocdevkit_by_class(tmp_path):
    year = tmp_path / "VOCdevkit" / "VOC2012"
    picture(year / "JPEGImages" / "2007_1.png")
    values = np.zeros(SIZE, np.uint8)
    values[2:20, 3:30] = 255
    values[3:19, 4:29] = VOC_CLASSES.index("bird") + 1
    values[22:40, 20:48] = VOC_CLASSES.index("cow") + 1
    labels = Image.fromarray(values)
    labels.putpalette(voc_palette().ravel().tolist())
    (year / "SegmentationClass").mkdir()
    labels.save(year / "SegmentationClass" / "2007_1.png")
    data = ConceptImages(year / "JPEGImages", tmp_path / "VOCdevkit", classes=VOC_CLASSES, with_void=True)
    assert data.labels == [VOC_CLASSES.index("bird"), VOC_CLASSES.index("cow")]
    for item, label in zip(data, data.labels, strict=True):
        np.testing.assert_array_equal(item.mask[0].numpy() > 0.5, values == label + 1)
        np.testing.assert_array_equal(item.void[0].numpy() > 0.5, values == 255)
