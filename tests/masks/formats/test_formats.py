"""Annotation files as masks: the same pixels as the tools' own libraries where pip has them, refusals elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.cli import main
from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.masks.formats.converting import Annotations
from torch_bgdebias.masks.formats.outlines import drawn
from torch_bgdebias.masks.formats.reading import AnnotationError, read_annotations

SIZE = (40, 50)
SQUARE = ((10.0, 5.0), (30.0, 5.0), (30.0, 25.0), (10.0, 25.0))
INSIDE = np.zeros(SIZE, bool)
INSIDE[5:25, 10:30] = True


@pytest.fixture
def pictures(tmp_path):
    for name in ("cat/0.png", "cat/1.png", "dog/0.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    return tmp_path


def labelme(shapes, name="0.png"):
    return {"shapes": shapes, "imagePath": name, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}


def polygon(label, points=SQUARE, kind="polygon"):
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind}


def coco(annotations, names=("cat/0.png", "cat/1.png", "dog/0.png")):
    images = [{"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for i, name in enumerate(names)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "x"}],
    }


def annotation(image, segmentation, category=7, **more):
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def test_labelme_beside_the_pictures(pictures, capsys):
    for name, shapes in (
        ("cat/0", [polygon("cat"), polygon("dog", [(40, 30), (49, 30), (49, 39)])]),
        ("cat/1", [polygon("cat", [(10, 5), (30, 25)], "rectangle"), polygon("cat", [(1, 1)], "point")]),
        ("dog/0", [polygon("dog")]),
    ):
        path = (pictures / "images" / name).with_suffix(".json")
        path.write_text("\ufeff" + json.dumps(labelme(shapes, f"..\\somewhere\\{path.stem}.png")), encoding="utf-8")
    with pytest.raises(
        FileNotFoundError, match=r"annotations \(LabelMe: 0.json, 1.json, 0.json\); pass masks=.*images. "
    ):
        MaskedImageFolder(pictures)
    words = ["masks", str(pictures), str(pictures / "masks"), "--from", str(pictures / "images")]
    assert main(words) == 0
    assert "3 masks written" in capsys.readouterr().out
    data = MaskedImageFolder(pictures)
    for i in range(3):
        np.testing.assert_array_equal(data[i][2][0].numpy() > 0, INSIDE)


def test_coco_with_run_lengths_and_a_crowd(pictures, capsys):
    flat = [coordinate for point in SQUARE for coordinate in point]
    runs = np.flatnonzero(np.diff(np.concatenate([[0], INSIDE.T.ravel(), [0]])))
    counts = np.diff(np.concatenate([[0], runs, [INSIDE.size]])).tolist()
    crowd = {"counts": [0, 80, SIZE[0] * SIZE[1] - 80], "size": list(SIZE)}  # the two columns at the left
    content = coco(
        [
            annotation(0, [flat]),
            annotation(0, [[40, 30, 49, 30, 49, 39]], 9),
            annotation(1, {"counts": counts, "size": list(SIZE)}),
            annotation(2, [flat], 9),
            annotation(2, crowd, 9, iscrowd=1),
        ]
    )
    (pictures / "all.json").write_text(json.dumps(content))
    words = ["masks", str(pictures), str(pictures / "masks"), "--from", str(pictures / "all.json")]
    assert main(words) == 0
    data = MaskedImageFolder(pictures)
    for i in range(3):
        np.testing.assert_array_equal(data[i][2][0].numpy() > 0, INSIDE)
    assert [int(data.void(i).sum()) for i in range(3)] == [0, 0, 80]


def test_cvat(tmp_path):
    points = ";".join(f"{x},{y}" for x, y in SQUARE)
    (tmp_path / "a.xml").write_text(
        f'<annotations><meta></meta><image id="0" name="cat/é.png" width="50" height="40"><polygon label="cat" '
        f'points="{points}" z_order="1"></polygon><box label="dog" xtl="1" ytl="1" xbr="3" ybr="4"></box></image>'
        "</annotations>"
    )
    (picture,) = read_annotations(tmp_path / "a.xml")
    assert picture.size == SIZE
    assert drawn(picture.shapes, SIZE).sum() == 400 + 6
    assert Annotations.of(tmp_path).find("cat/é.png") == picture
    assert Annotations.of(tmp_path).find("é.png") == picture


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (coco([annotation(0, [], bbox=[1, 2, 3, 4])]), r"a.json: annotation 1 has a box and no outline"),
        (
            coco([annotation(9, [[1, 2, 3, 4, 5, 6]])]),
            r"a.json: expected COCO annotations, got a damaged file \(KeyError",
        ),
        (labelme([polygon("cat", kind="ellipse")]), r"a.json: expected outlines, got a shape of kind 'ellipse'"),
        ({"shapes": 3, "imageHeight": 1}, r"a.json: expected LabelMe annotations, got a damaged file"),
        ({"x": 1}, r"a.json: expected annotations of .* or YOLO, got something else"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, content, text):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=text):
        read_annotations(tmp_path / "a.json")


def test_boxes_are_no_masks(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation><filename>0.png</filename><object></object></annotation>")
    with pytest.raises(AnnotationError, match=r"expected outlines, got PASCAL VOC: boxes alone.*--boxes .*a.xml"):
        read_annotations(tmp_path / "a.xml")


def test_pictures_and_annotations_that_do_not_meet(pictures, capsys):
    (pictures / "all.json").write_text(json.dumps(coco([], ["cat/0.png", "cat/1.png"])))
    words = ["masks", str(pictures), str(pictures / "masks"), "--from"]
    assert main([*words, str(pictures / "all.json")]) == 1
    assert "1 of 3 pictures have no annotations: dog/0.png; it has cat/0.png, cat/1.png" in capsys.readouterr().err
    (pictures / "all.json").write_text(json.dumps(coco([], ["0.png", "1.png"])))
    assert main([*words, str(pictures / "all.json")]) == 1
    assert "expected names with folders, got one that fits cat/0.png and dog/0.png" in capsys.readouterr().err
    (pictures / "all.json").write_text(json.dumps(coco([], ["cat/0.png", "cat/1.png"])))
    (pictures / "again.json").write_text(json.dumps(coco([])))
    assert main([*words, str(pictures)]) == 1
    assert "expected each picture once, got cat/0.png again" in capsys.readouterr().err
    assert main([*words, str(pictures / "images")]) == 1
    assert "Supervisely, Datumaro, VIA, YOLO or a VOCdevkit, found none" in capsys.readouterr().err
    (pictures / "again.json").unlink()
    small = coco([annotation(0, [[1, 1, 5, 1, 5, 5]])])
    small["images"][0]["width"] = 51
    (pictures / "all.json").write_text(json.dumps(small))
    assert main([*words, str(pictures / "all.json")]) == 1
    assert "expected the size (40, 51) (H, W) of its annotations, got (40, 50)" in capsys.readouterr().err


def test_pictures_with_dots_in_their_names_are_found(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco([annotation(0, [[10, 5, 30, 5, 30, 25]])], ["cat.v2", "cat.v2.late"])))
    annotations = Annotations.of(path)
    assert annotations.key_of("images/cat.v2.png") == "cat.v2"
    assert annotations.key_of("cat.v2.late.png") == "cat.v2.late"
    assert annotations.key_of("cat.png") is None
