"""Boxes as hints for mask makers: from COCO, PASCAL VOC XML, YOLO, CSV, or around any outlines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torch_bgdebias.files import first_few, same_form
from torch_bgdebias.masks.formats.converting import Annotations
from torch_bgdebias.masks.formats.notice import BOX_COLUMNS, annotation_kind
from torch_bgdebias.masks.formats.outlines import AnnotatedPicture, AnnotationError, Outline, Shape, drawn, picture_size
from torch_bgdebias.masks.formats.reading import read_annotations
from torch_bgdebias.masks.formats.voc import voc_objects
from torch_bgdebias.records import read_table

__all__ = ["BoxFile"]

_NAME = ("image", "file_name", "filename", "file", "path", "name")
_LABEL = ("label", "class", "category")
#: columns of left, top, right, bottom; and of left, top and sides
*_CORNERS, _SIDES = BOX_COLUMNS


class BoxFile:
    """Boxes by picture.

    Args:
        annotations: pictures whose shapes are, or lie in, the boxes.
        place: where they were read, for messages.
    """

    def __init__(self, annotations: Annotations, place: Path) -> None:
        self.annotations, self.place = annotations, place

    @classmethod
    def of(cls, place: Path) -> BoxFile:
        """Read one file, or all in a folder.

        Raises:
            FileNotFoundError: there is none. AnnotationError: one cannot be read.
        """
        if place.is_file():
            files = [place]
        else:
            files = sorted(path for path in place.rglob("*") if path.suffix.lower() == ".csv" or annotation_kind(path))
        if not files:
            raise FileNotFoundError(f"--boxes: expected COCO, PASCAL VOC, YOLO or CSV in {place}, found none")
        shapes: dict[str, list[Shape]] = {}
        sizes: dict[str, tuple[int, int] | None] = {}
        for path in files:
            for picture in _boxes_in(path):
                key = same_form(picture.name)
                shapes.setdefault(key, []).extend(picture.shapes)
                sizes[key] = picture.size
        pictures = {
            key: AnnotatedPicture(key, sizes[key], tuple(shapes_of_picture))
            for key, shapes_of_picture in shapes.items()
        }
        return cls(Annotations(pictures), place)

    def find(self, name: str, category: str | None, size: tuple[int, int]) -> Tensor | None:
        """The boxes (K, 4) of a picture, as `torch_bgdebias.masks.Hints` has them; ``None`` where there are none.

        Args:
            name: the picture's, with folders.
            category: its class, whose own boxes are taken where there is a label of that name.
            size: (H, W) of the picture.

        Raises:
            AnnotationError: the picture has another size, or a box lies outside of it.
        """
        picture = self.annotations.find(name)
        if picture is None:
            return None
        if picture.size is not None and picture.size != size:
            raise AnnotationError(f"{self.place}: expected {name} of size {picture.size} (H, W), got {size}")
        boxes = [_bounds(shape, size) for shape in self.annotations.meant(picture, name, category)]
        corners = [box for box in boxes if box is not None]
        for top, left, bottom, right in corners:
            if top >= bottom or left >= right:
                raise AnnotationError(f"{self.place}: {name}: a box lies outside of the picture of size {size} (H, W)")
        return torch.tensor(corners, dtype=torch.int64) if corners else None


def _boxes_in(path: Path) -> Iterator[AnnotatedPicture]:
    kind = annotation_kind(path)
    if path.suffix.lower() == ".csv":
        yield from _csv(path)
    elif kind == "PASCAL VOC":
        name, size, objects = voc_objects(path)
        # from 1, and both ends inside
        shapes = [_box(label, left - 1, top - 1, right, bottom) for label, (left, top, right, bottom) in objects]
        yield AnnotatedPicture(name, size, tuple(shapes))
    elif kind == "YOLO boxes":
        yield _yolo(path)
    elif kind == "COCO":
        yield from _coco(path)
    else:
        yield from read_annotations(path)


def _coco(path: Path) -> Iterator[AnnotatedPicture]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
        shapes: dict[object, list[Shape]] = {image["id"]: [] for image in content["images"]}
        for annotation in content.get("annotations", []):
            if annotation.get("iscrowd", 0):
                continue
            left, top, width, height = (float(value) for value in annotation["bbox"])
            label = names.get(annotation.get("category_id"), str(annotation.get("category_id")))
            shapes[annotation["image_id"]].append(_box(label, left, top, left + width, top + height))
        for image in content["images"]:
            size = picture_size(image["height"], image["width"]) if "height" in image and "width" in image else None
            yield AnnotatedPicture(str(image["file_name"]), size, tuple(shapes[image["id"]]))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise AnnotationError(
            f"{path}: expected COCO annotations with boxes, got a damaged file ({error!r})"
        ) from error


def _yolo(path: Path) -> AnnotatedPicture:
    names = path.parent / "classes.txt"
    classes = names.read_text(encoding="utf-8-sig").splitlines() if names.is_file() else []
    shapes = []
    for row, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            number, *values = line.split()
            try:
                x, y, width, height = (float(value) for value in values)
                int(number)
            except ValueError as error:
                raise AnnotationError(
                    f"{path}: line {row}: expected a class and four numbers, got {line.strip()[:80]!r}"
                ) from error
            label = classes[int(number)].strip() if 0 <= int(number) < len(classes) else number
            outline = _corners(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            shapes.append(Shape(label, (outline,), relative=True))
    return AnnotatedPicture(path.stem, None, tuple(shapes))


def _csv(path: Path) -> Iterator[AnnotatedPicture]:
    """A line a box: a picture's name, perhaps a label, and four edges, by the names of the columns."""
    try:
        columns, rows = read_table(path)
    except ValueError as error:
        raise AnnotationError(str(error)) from error
    name = next((column for column in _NAME if column in columns), None)
    corners = next((names for names in _CORNERS if set(names) <= set(columns)), None)
    if name is None or (corners is None and not set(_SIDES) <= set(columns)):
        raise AnnotationError(
            f"{path}: expected columns image, left, top, right, bottom (or xmin, ymin, xmax, ymax; or x, y, width, "
            f"height) and perhaps label, got {first_few(columns, 12) or 'none'}"
        )
    label = next((column for column in _LABEL if column in columns), None)
    for number, row in enumerate(rows, start=2):
        try:
            first, second, third, fourth = (float(row[column]) for column in corners or _SIDES)
        except (TypeError, ValueError) as error:
            raise AnnotationError(f"{path}: line {number}: expected four numbers, got {row}") from error
        right, bottom = (third, fourth) if corners else (first + third, second + fourth)
        shape = _box(row[label] if label else "object", first, second, right, bottom)
        yield AnnotatedPicture(row[name].replace("\\", "/"), None, (shape,))


def _box(label: str, left: float, top: float, right: float, bottom: float) -> Shape:
    return Shape(label, (_corners(left, top, right, bottom),))


def _corners(left: float, top: float, right: float, bottom: float) -> Outline:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _bounds(shape: Shape, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Top, left, bottom, right of a shape within the picture; ``None`` of one that is neither."""
    if shape.crowd:
        return None
    height, width = size
    if shape.runs is not None:
        rows, columns = np.nonzero(drawn([shape], size) == 1)
        if not len(rows):
            return None
        return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
    scale = (width, height) if shape.relative else (1, 1)
    points = np.array([point for outline in shape.polygons for point in outline], np.float64) * scale
    left, top = np.floor(points.min(0)).astype(int).tolist()
    right, bottom = np.ceil(points.max(0)).astype(int).tolist()
    return max(0, top), max(0, left), min(height, bottom), min(width, right)
