"""Readers of annotation files: LabelMe and COCO JSON, CVAT XML; further tools are in `tools`."""

from __future__ import annotations

import base64
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from torch_bgdebias.masks.formats.notice import BOXES_ALONE, annotation_kind
from torch_bgdebias.masks.formats.outlines import (
    AnnotatedPicture,
    AnnotationError,
    Flags,
    Outline,
    Shape,
    from_run_lengths,
    picture_size,
    run_lengths_of_plane,
)
from torch_bgdebias.masks.formats.run_lengths import run_lengths_of
from torch_bgdebias.masks.formats.tools import (
    plane_of_png,
    read_datumaro,
    read_label_studio,
    read_supervisely,
    read_via,
    read_yolo,
)

__all__ = ["AnnotationError", "read_annotations"]

_READERS = "LabelMe, COCO, CVAT, Label Studio, Supervisely, Datumaro, VIA or YOLO"


def read_annotations(path: Path) -> list[AnnotatedPicture]:
    """Everything that one file says about pictures.

    Raises:
        AnnotationError: of no tool that is known, damaged, or with shapes that no mask comes of.
    """
    kind = annotation_kind(path)
    readers = {
        "LabelMe": _labelme,
        "COCO": _coco,
        "CVAT": _cvat,
        "Label Studio": read_label_studio,
        "Supervisely": read_supervisely,
        "Datumaro": read_datumaro,
        "VIA": read_via,
        "YOLO": read_yolo,
    }
    reader = readers.get(kind or "")
    if reader is None:
        if kind in BOXES_ALONE:
            raise AnnotationError(f"{path}: expected outlines, got {kind}: boxes alone; {_filling(path)}")
        raise AnnotationError(f"{path}: expected annotations of {_READERS}, got something else")
    try:
        return list(reader(path))
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}") from error
    except (
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
        RecursionError,
        ElementTree.ParseError,
    ) as error:
        raise AnnotationError(f"{path}: expected {kind} annotations, got a damaged file ({error!r})") from error


def _filling(path: Path) -> str:
    """Advice on boxes, which are no masks."""
    return f"a box is no mask; let a maker fill the boxes: bgdebias masks IN OUT --with grabcut --boxes {path}"


def _labelme(path: Path) -> Iterable[AnnotatedPicture]:
    content = _json(path)
    name = str(content.get("imagePath") or path.with_suffix(".jpg").name).replace("\\", "/").rsplit("/", 1)[-1]
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = picture_size(height, width) if height and width else None
    shapes = [_labelme_shape(shape, size) for shape in content["shapes"]]
    yield AnnotatedPicture(name, size, tuple(shape for shape in shapes if shape is not None))


def _labelme_shape(shape: dict[str, Any], size: tuple[int, int] | None) -> Shape | None:
    kind = shape.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in shape["points"]]
    label = str(shape["label"])
    if kind in ("polygon", "rotation") or (kind == "rectangle" and len(points) > 2):  # X-AnyLabeling names all corners
        return Shape(label, (tuple(points),))
    if kind == "rectangle":
        return Shape(label, (_box(*points[0], *points[1]),))
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        return Shape(label, (_circle(x, y, math.dist((x, y), edge)),), is_round=True)
    if kind in ("point", "line", "linestrip", "points"):
        return None  # nothing has an area there
    if kind == "mask" and size is not None:
        plane = plane_of_png(base64.b64decode(shape["mask"]), points[0], size)
        return Shape(label, runs=run_lengths_of_plane(plane))
    raise AnnotationError(f"expected outlines, got a shape of kind {kind!r}; let the tool export PNG masks")


def _coco(path: Path) -> Iterable[AnnotatedPicture]:
    content = _json(path)
    names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
    shapes: dict[Any, list[Shape]] = {image["id"]: [] for image in content["images"]}
    for annotation in content.get("annotations", []):
        segmentation = annotation.get("segmentation")
        if not segmentation:
            raise AnnotationError(f"annotation {annotation.get('id')} has a box and no outline; {_filling(path)}")
        label = names.get(annotation.get("category_id"), str(annotation.get("category_id")))
        crowd = bool(annotation.get("iscrowd", 0))
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            runs = run_lengths_of(counts) if isinstance(counts, str) else tuple(int(count) for count in counts)
            shape = Shape(label, runs=runs, crowd=crowd)
        else:
            outlines = tuple(
                tuple((float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True)) for flat in segmentation
            )
            shape = Shape(label, outlines, crowd=crowd)
        shapes[annotation["image_id"]].append(shape)
    for image in content["images"]:
        size = picture_size(image["height"], image["width"]) if "height" in image and "width" in image else None
        yield AnnotatedPicture(str(image["file_name"]), size, tuple(shapes[image["id"]]))


def _cvat(path: Path) -> Iterable[AnnotatedPicture]:
    for image in ElementTree.fromstring(path.read_text(encoding="utf-8-sig")).iter("image"):
        shapes, size = [], picture_size(image.attrib["height"], image.attrib["width"])
        for element in sorted(image, key=lambda element: int(element.get("z_order", "0"))):
            label = str(element.get("label"))
            if element.tag == "polygon":
                pairs = [point.split(",") for point in element.attrib["points"].split(";")]
                shapes.append(Shape(label, (tuple((float(x), float(y)) for x, y in pairs),)))
            elif element.tag == "box":
                edges = (float(element.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
                shapes.append(Shape(label, (_box(*edges),)))
            elif element.tag == "mask":
                shapes.append(Shape(label, runs=run_lengths_of_plane(_cvat_mask(element, size))))
            elif element.tag not in ("tag", "points", "polyline"):
                raise AnnotationError(f"expected polygons, got <{element.tag}>; let CVAT export PNG masks")
        yield AnnotatedPicture(image.attrib["name"], size, tuple(shapes))


def _cvat_mask(element: ElementTree.Element, size: tuple[int, int]) -> Flags:
    """A brushed mask: run lengths along the rows of its box, beginning with background."""
    left, top, width, height = (int(element.attrib[name]) for name in ("left", "top", "width", "height"))
    runs = [int(count) for count in element.attrib["rle"].split(",")]
    if min(left, top) < 0 or left + width > size[1] or top + height > size[0]:
        raise AnnotationError(f"expected a mask within {size} (H, W), got {height} x {width} at ({left}, {top})")
    plane: Flags = np.zeros(size, bool)
    plane[top : top + height, left : left + width] = from_run_lengths(runs, (width, height)).T
    return plane


def _box(left: float, top: float, right: float, bottom: float) -> Outline:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _circle(x: float, y: float, radius: float, corners: int = 64) -> Outline:
    turns = [2 * math.pi * corner / corners for corner in range(corners)]
    return tuple((x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))
