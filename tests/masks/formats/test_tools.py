"""Label Studio, Supervisely, Datumaro and YOLO as masks, and what is no mask in them."""

from __future__ import annotations

import base64
import io
import json
import math
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.cli import main
from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.masks.formats.converting import Annotations
from torch_bgdebias.masks.formats.notice import annotation_files, annotation_kind
from torch_bgdebias.masks.formats.outlines import AnnotationError, from_run_lengths, run_lengths_of_plane
from torch_bgdebias.masks.formats.tools import brush_plane

SIZE = (40, 50)
INSIDE = np.zeros(SIZE, bool)
INSIDE[5:25, 10:30] = True
CORNERS = [[10, 5], [30, 5], [30, 25], [10, 25]]
SHARES = [[x / SIZE[1], y / SIZE[0]] for x, y in CORNERS]


def packed(plane):
    """Label Studio's packing of (H, W) uint8 as four channels, the last of them the brush: runs of one value alone."""
    values = np.zeros((*plane.shape, 4), np.uint8)
    values[..., 3] = plane
    flat = values.ravel().tolist()
    bits = f"{len(flat):032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (1, 4, 8, 16))
    start = 0
    while start < len(flat):
        end = start
        while end < len(flat) and flat[end] == flat[start] and end - start < 65536:
            end += 1
        if end - start == 1 and start + 1 < len(flat):  # two values that differ, one by one
            bits += f"0{0:02b}{1:01b}{flat[start]:08b}{flat[start + 1]:08b}"
            start += 2
            continue
        bits += f"1{3:02b}{end - start - 1:016b}{flat[start]:08b}"
        start = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def result(kind, value, **more):
    size = {"original_height": SIZE[0], "original_width": SIZE[1]}
    return {"type": kind, "from_name": "label", "to_name": "image", **size, "value": value, **more}


def label_studio(*results):
    image = "/data/upload/3/1f2e3d4c-0.png"
    return json.dumps([{"id": 1, "data": {"image": image}, "annotations": [{"result": list(results)}]}])


def supervisely(*objects):
    return json.dumps({"size": {"height": SIZE[0], "width": SIZE[1]}, "tags": [], "objects": list(objects)})


def bitmap():
    part = np.zeros((20, 20, 4), np.uint8)
    part[...] = 255
    part[0, 0] = 0
    file = io.BytesIO()
    Image.fromarray(part).save(file, "PNG")
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return {"classTitle": "cat", "geometryType": "bitmap", "bitmap": {"origin": [10, 5], "data": data}}


def datumaro(annotation):
    item = {"id": "cat/0", "annotations": [annotation], "image": {"path": "cat/0.png", "size": list(SIZE)}}
    return json.dumps({"categories": {"label": {"labels": [{"name": "cat"}]}}, "items": [item]})


def part_of_png():
    """The holed object's box as labelme packs it."""
    file = io.BytesIO()
    Image.fromarray(HOLED[5:25, 10:30]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def via(*places):
    """A project of VIA's, whose file names have the file's size added."""
    regions = [{"shape_attributes": place, "region_attributes": {"kind": "cat"}} for place in places]
    return json.dumps({"_via_img_metadata": {"0.png99": {"filename": "0.png", "size": 99, "regions": regions}}})


def labelme(shape):
    picture = {"imagePath": "0.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
    return json.dumps({"shapes": [{"label": "cat", **shape}], **picture})


ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
WITHOUT_CORNER = INSIDE.copy()
WITHOUT_CORNER[5, 10] = False
HOLED = INSIDE.copy()
HOLED[10:15, 15:20] = False
WRITTEN = {
    "Label Studio polygon": (
        "tasks.json",
        label_studio(
            result("polygonlabels", {"points": [[100 * x, 100 * y] for x, y in SHARES], "polygonlabels": ["cat"]})
        ),
        INSIDE,
    ),
    "Label Studio brush": (
        "tasks.json",
        label_studio(
            result("brushlabels", {"format": "rle", "rle": packed(INSIDE * np.uint8(255)), "brushlabels": ["cat"]})
        ),
        INSIDE,
    ),
    "Label Studio rectangle": (
        "tasks.json",
        label_studio(
            result(
                "rectanglelabels",
                {"x": 20, "y": 12.5, "width": 40, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]},
            )
        ),
        INSIDE,
    ),
    "Supervisely polygon": (
        "0.png.json",
        supervisely(
            {
                "classTitle": "cat",
                "geometryType": "polygon",
                "points": {"exterior": CORNERS, "interior": [[[15, 10], [20, 10], [20, 15], [15, 15]]]},
            }
        ),
        HOLED,
    ),
    "Supervisely bitmap": ("0.png.json", supervisely(bitmap()), WITHOUT_CORNER),
    "Datumaro polygon": (
        "default.json",
        datumaro({"type": "polygon", "label_id": 0, "points": [value for corner in CORNERS for value in corner]}),
        INSIDE,
    ),
    "Datumaro mask": (
        "default.json",
        datumaro({"type": "mask", "label_id": 0, "rle": {"counts": list(run_lengths_of_plane(INSIDE)), "size": SIZE}}),
        INSIDE,
    ),
    "LabelMe mask": (
        "0.json",
        labelme({"shape_type": "mask", "points": [[10, 5], [29, 24]], "mask": part_of_png()}),
        HOLED,
    ),
    "LabelMe rectangle": ("0.json", labelme({"shape_type": "rectangle", "points": CORNERS}), INSIDE),
    "LabelMe rotation": ("0.json", labelme({"shape_type": "rotation", "points": CORNERS}), INSIDE),
    "CVAT mask": (
        "a.xml",
        f'<annotations><image id="0" name="0.png" width="{SIZE[1]}" height="{SIZE[0]}"><mask label="cat" left="10" '
        f'top="5" width="20" height="20" rle="{", ".join(map(str, run_lengths_of_plane(HOLED[5:25, 10:30].T)))}"/>'
        "</image></annotations>",
        HOLED,
    ),
    "VIA polygon": (
        "via.json",
        via({"name": "polygon", "all_points_x": [x for x, _ in CORNERS], "all_points_y": [y for _, y in CORNERS]}),
        INSIDE,
    ),
    "VIA rect": ("via.json", via({"name": "rect", "x": 10, "y": 5, "width": 20, "height": 20}), INSIDE),
    "VIA ellipse": (
        "via.json",
        via({"name": "ellipse", "cx": 20, "cy": 15, "rx": 8, "ry": 4, "theta": math.pi / 2}),
        np.hypot((ROWS + 0.5 - 15) / 8, (COLUMNS + 0.5 - 20) / 4) < 1,
    ),
    "YOLO": ("0.txt", "0 " + " ".join(f"{value}" for corner in SHARES for value in corner) + "\r\n", INSIDE),
}


@pytest.fixture
def pictures(tmp_path):
    path = tmp_path / "images" / "cat" / "0.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    return tmp_path


@pytest.mark.parametrize("name", list(WRITTEN))
def test_the_same_pixels(pictures, name, capsys):
    file, text, inside = WRITTEN[name]
    place = pictures / "notes" / file
    place.parent.mkdir()
    place.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert annotation_kind(place) == name.rsplit(" ", 1)[0]
    assert main(["masks", str(pictures / "images"), str(pictures / "masks"), "--from", str(place.parent)]) == 0
    data = MaskedImageFolder(pictures)
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, inside)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.json", label_studio(result("ellipselabels", {"ellipselabels": ["cat"]})), "got 'ellipselabels'"),
        ("a.json", supervisely({"classTitle": "cat", "geometryType": "cuboid"}), "got 'cuboid'"),
        ("a.json", datumaro({"type": "bbox", "label_id": 0, "bbox": [1, 2, 3, 4]}), "a box is no mask"),
        (
            "a.json",
            labelme({"shape_type": "mask", "points": [[0, 0]], "mask": part_of_png()[:80]}),
            "a.json: expected a picture in a bitmap, got another or a damaged one",
        ),
        ("a.json", via({"name": "cuboid"}), "expected polygons, rectangles, circles or ellipses, got 'cuboid'"),
        (
            "a.json",
            labelme({"shape_type": "mask", "points": [[0, 0]], "mask": part_of_png()}).replace("40", "19"),
            r"expected a bitmap of at most \(19, 50\) \(H, W\), got \(20, 20\)",
        ),
        ("a.txt", "0 0.5 0.5 0.2 0.2\n", "YOLO boxes: boxes alone"),
        ("a.txt", "0 0.5 0.5 0.2 0.2 0.3 0.3\n1 0.1 0.1 0.2 0.2\n", "line 2: expected a class and the corners"),
    ],
)
def test_what_is_no_mask_is_named(tmp_path, file, text, message):
    (tmp_path / file).write_text(text)
    with pytest.raises(AnnotationError, match=message):
        Annotations.of(tmp_path / file)


YAMLS = {
    "list": "train: ../images\nnc: 2\nnames: ['dog', \"cat\"]\nother: [1]\n",
    "list of two lines": "names: [dog,\n  cat]  # two\n",
    "numbers": "names:\n  0: dog\n  1: cat\nnc: 2\n",
    "dashes": "names:\n- dog\n- cat\n\nnc: 2\n",
    "in braces": "{}\nnames: {1: cat, 0: dog}\n",
    "commas in quotes": "names: {0: 'dog, or wolf', 1: cat}\n",
    "comments": "names:  # two\n  # of them\n\n  0: dog # the first\n\n  1: cat  # the second\nnc: 2\n",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=list(YAMLS))
def test_yolo_s_numbers_are_named_by_the_data_s_yaml(pictures, text):
    """Without names no label was that of the class's folder, and a dog beside the cat was part of it."""
    corners = " ".join(str(value) for corner in SHARES for value in corner)
    other = "0 0.8 0.8 0.9 0.8 0.9 0.9\n"
    place = pictures / "notes" / "cat"
    place.mkdir(parents=True)
    (place / "0.txt").write_text(f"1 {corners}\n{other}")
    text_of_warning = r"no label is called cat \(it has 0, 1\), so that all .* in 1 of them things of .*cat/0"
    with pytest.warns(UserWarning, match=text_of_warning):
        data = MaskedImageFolder(pictures, masks=pictures / "notes")
    assert data[0][2].sum() > INSIDE.sum()
    (pictures / "notes" / "data.yaml").write_text(text)
    data = MaskedImageFolder(pictures, masks=pictures / "notes")
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, INSIDE)


def test_labels_and_folders_are_compared_without_capitals_and_dashes(pictures):
    (pictures / "images" / "cat").rename(pictures / "images" / "Big_cat")
    shapes = [
        {"label": "big-Cat", "points": CORNERS, "shape_type": "polygon"},
        {"label": "dog", "points": [[40, 30], [49, 30], [49, 39]], "shape_type": "polygon"},
    ]
    (pictures / "0.json").write_text(json.dumps({**json.loads(labelme({"points": []})), "shapes": shapes}))
    data = MaskedImageFolder(pictures, masks=pictures / "0.json")
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, INSIDE)


def test_outlines_of_a_larger_copy_are_refused(pictures):
    """COCO without sizes, of photographs that were halved since: what lay beyond the picture was cut off."""
    flat = [2 * value for corner in CORNERS for value in corner]
    content = {
        "images": [{"id": 0, "file_name": "0.png"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 7, "segmentation": [flat]}],
        "categories": [{"id": 7, "name": "cat"}],
    }
    (pictures / "a.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=r"0.png: expected outlines within .* reach to x = 60, y = 50: .* larger"):
        MaskedImageFolder(pictures, masks=pictures / "a.json")[0]
    content["annotations"][0]["segmentation"] = [[value / 2 for value in flat]]
    (pictures / "a.json").write_text(json.dumps(content))
    data = MaskedImageFolder(pictures, masks=pictures / "a.json")
    np.testing.assert_array_equal(data[0][2][0].numpy() > 0.5, INSIDE)


def test_circles_may_reach_beyond_the_picture(pictures):
    """They are drawn from the middle, so that one at the border does; its middle lies within."""
    height, width = INSIDE.shape
    circle = {"name": "circle", "cx": width - 5, "cy": height / 2, "r": 15}
    entry = {"filename": "0.png", "regions": [{"shape_attributes": circle, "region_attributes": {"name": "cat"}}]}
    (pictures / "via.json").write_text(json.dumps({"0.png1": entry}))
    mask = MaskedImageFolder(pictures, masks=pictures / "via.json")[0][2][0].numpy() > 0.5
    y, x = np.mgrid[:height, :width]
    assert (mask != (np.hypot(y - height / 2, x - width + 5) <= 15)).mean() < 0.03
    circle["cx"] = 2 * (width - 5)
    (pictures / "via.json").write_text(json.dumps({"0.png1": entry}))
    with pytest.raises(AnnotationError, match="expected outlines within .* a larger copy"):
        MaskedImageFolder(pictures, masks=pictures / "via.json")[0]


def test_long_numbers_are_looked_through_at_once(tmp_path):
    """Each digit was taken for the beginning of another number: 20 s for 40 kB of a mask as text."""
    (tmp_path / "mask.txt").write_text("0110" * 10000)
    start = time.process_time()
    assert annotation_files([tmp_path]) == []
    assert time.process_time() - start < 2


def test_other_text_is_no_annotation(tmp_path):
    for number, text in enumerate(("cat\ndog\n", "1 2\n3 4\n", "0 12 13 14 15 16 17\n", "")):
        (tmp_path / f"{number}.txt").write_text(text)
        assert annotation_kind(tmp_path / f"{number}.txt") is None


def test_brushes_of_any_values():
    plane = np.random.default_rng(0).integers(0, 3, (7, 9)).astype(np.uint8) * 100
    np.testing.assert_array_equal(brush_plane(packed(plane), 7, 9), plane)
    with pytest.raises(AnnotationError, match="expected 4 x 9 x 9 values, got 252"):
        brush_plane(packed(plane), 9, 9)


def test_run_lengths_go_around():
    for seed in range(20):
        plane = np.random.default_rng(seed).random((6, 5)) < seed / 19
        runs = run_lengths_of_plane(plane)
        assert sum(runs) == plane.size
        np.testing.assert_array_equal(from_run_lengths(runs, plane.shape), plane)
