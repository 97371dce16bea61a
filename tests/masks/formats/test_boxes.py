"""`BoxFile`: the same box from COCO, PASCAL VOC, YOLO, CSV and outlines; classes' own boxes; boxes that are none."""

from __future__ import annotations

import json

import pytest
import torch

from torch_bgdebias.masks.formats.boxes import BoxFile
from torch_bgdebias.masks.formats.outlines import AnnotationError

SIZE = (20, 30)
#: rows 2 to 7, columns 3 to 11, in whole pixels
BOX = torch.tensor([[2, 3, 8, 12]])
COCO = {
    "images": [{"id": 1, "file_name": "cat/a.jpg", "height": 20, "width": 30}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [3, 2, 9, 6]},
        {"image_id": 1, "category_id": 2, "bbox": [0, 0, 1, 1]},
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 30, 20], "iscrowd": 1},
    ],
}
VOC = (
    "<annotation><filename>a.jpg</filename><size><width>30</width><height>20</height></size><object><name>cat</name>"
    "<bndbox><xmin>4</xmin><ymin>3</ymin><xmax>12</xmax><ymax>8</ymax></bndbox></object></annotation>"
)
LABELME = {"shapes": [{"label": "cat", "points": [[3.5, 2], [11.2, 4], [5, 7.5]], "shape_type": "polygon"}]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(COCO)),
        ("a.xml", VOC),
        ("a.txt", f"0 {7.5 / 30} {5 / 20} {9 / 30} {6 / 20}\n"),
        ("a.csv", "image,left,top,right,bottom\ncat/a.jpg,3,2,12,8\n"),
        ("a.csv", "filename,xmin,ymin,xmax,ymax,label\na.jpg,3.2,2.9,11.1,7.5,cat\n"),
        ("a.csv", "x,y,width,height,path\n3,2,9,6,cat\\a.jpg\n"),
        ("a.json", json.dumps(LABELME | {"imagePath": "a.jpg", "imageHeight": 20, "imageWidth": 30})),
    ],
)
@pytest.mark.parametrize("whole_folder", [True, False])
def test_one_box(tmp_path, name, text, whole_folder):
    (tmp_path / name).write_text(text)
    boxes = BoxFile.of(tmp_path if whole_folder else tmp_path / name)
    assert torch.equal(boxes.find("cat/a.jpg", None, SIZE), BOX)
    assert boxes.find("cat/b.jpg", None, SIZE) is None


def test_run_lengths_have_boxes_too(tmp_path):
    runs = [0] * 0 + [3 * 20 + 2, 6] + [14, 6] * 8 + [20 * 30 - (3 * 20 + 2) - 6 - 20 * 8]
    content = COCO | {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [3, 2, 9, 6]}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert torch.equal(BoxFile.of(tmp_path).find("cat/a.jpg", None, SIZE), BOX)
    item = {"id": "cat/a.jpg", "annotations": [{"type": "mask", "label_id": 0, "rle": {"counts": runs}}]}
    (tmp_path / "a.json").write_text(
        json.dumps({"items": [item], "categories": {"label": {"labels": [{"name": "cat"}]}}})
    )
    assert torch.equal(BoxFile.of(tmp_path).find("cat/a.jpg", None, SIZE), BOX)


def test_several_boxes_of_a_picture_and_a_class(tmp_path):
    (tmp_path / "a.csv").write_text(
        "image,label,left,top,right,bottom\nx/a.jpg,cat,0,0,2,2\nx/a.jpg,cat,-4,5,40,9\nx/a.jpg,dog,4,4,6,6\n"
    )
    boxes = BoxFile.of(tmp_path)
    assert boxes.find("x/a.jpg", None, SIZE).tolist() == [[0, 0, 2, 2], [5, 0, 9, 30], [4, 4, 6, 6]]
    assert boxes.find("x/a.jpg", "dog", SIZE).tolist() == [[4, 4, 6, 6]]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        (
            "a.csv",
            "image,left,top\na.jpg,1,2\n",
            r"expected columns image, left, top, right, bottom .* got image, left",
        ),
        ("a.csv", "image,left,top,right,bottom\na.jpg,1,2,x,4\n", "line 2: expected four numbers"),
        ("a.csv", "", "got none"),
        ("a.json", json.dumps(COCO | {"annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}]}), "got a damaged file"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, text, error):
    (tmp_path / name).write_text(text)
    with pytest.raises(AnnotationError, match=error):
        BoxFile.of(tmp_path / name)


def test_boxes_outside_and_pictures_of_another_size(tmp_path):
    (tmp_path / "a.csv").write_text("image,left,top,right,bottom\na.jpg,31,2,40,8\n")
    with pytest.raises(AnnotationError, match=r"a.csv: a.jpg: a box lies outside of the picture of size \(20, 30\)"):
        BoxFile.of(tmp_path / "a.csv").find("a.jpg", None, SIZE)
    (tmp_path / "a.json").write_text(json.dumps(COCO))
    with pytest.raises(AnnotationError, match=r"expected cat/a.jpg of size \(20, 30\) \(H, W\), got \(40, 60\)"):
        BoxFile.of(tmp_path / "a.json").find("cat/a.jpg", None, (40, 60))
    with pytest.raises(FileNotFoundError, match="--boxes: expected COCO, PASCAL VOC, YOLO or CSV in .*, found none"):
        BoxFile.of(tmp_path / "nowhere")
