"""Readers of further annotation tools: Label Studio, Supervisely, Datumaro and VIA (JSON), YOLO polygons (text)."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torch_bgdebias.masks.formats.outlines import (
    AnnotatedPicture,
    AnnotationError,
    Flags,
    Outline,
    Shape,
    picture_size,
    run_lengths_of_plane,
)
from torch_bgdebias.masks.formats.run_lengths import run_lengths_of

__all__ = [
    "brush_plane",
    "plane_of_png",
    "read_datumaro",
    "read_label_studio",
    "read_supervisely",
    "read_via",
    "read_yolo",
]

#: files that name YOLO's classes, a line each, and those of settings that do
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_DATA_FILES = ("data.yaml", "dataset.yaml")
#: names between commas, in quotes where they hold some themselves, with their numbers or without
_ENTRIES = re.compile(r"(?:\d+\s*:\s*)?(?:'[^'\n]*'|\"[^\"\n]*\"|[^,\s][^,\n]*)")
#: of what is drawn for a circle
_CORNERS = 64
#: a larger class number in settings is none
_MOST_NAMES = 100_000
_NO_AREA = ("choices", "keypointlabels", "labels", "number", "rating", "taxonomy", "textarea", "vectorlabels")


def read_label_studio(path: Path) -> Iterable[AnnotatedPicture]:
    """The JSON export: tasks with polygons, ellipses and rectangles in percent of the picture, and brushed masks."""
    tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    for task in tasks if isinstance(tasks, list) else [tasks]:
        image_path = str(task["data"].get("image") or next(iter(task["data"].values()), "")).replace("\\", "/")
        annotations = [
            annotation
            for annotation in task.get("annotations") or task.get("completions") or []
            if not annotation.get("was_cancelled")
        ]
        if len(annotations) > 1:
            raise AnnotationError(f"{image_path}: expected one annotation a picture, got {len(annotations)}: keep one")
        results = annotations[0]["result"] if annotations else []
        sizes = {picture_size(r["original_height"], r["original_width"]) for r in results if "original_width" in r}
        shapes = [shape for result in results for shape in _label_studio_shapes(result)]
        yield AnnotatedPicture(_upload_name(image_path), sizes.pop() if len(sizes) == 1 else None, tuple(shapes))


def _upload_name(path: str) -> str:
    """The picture's own name: what is uploaded gets eight digits and a dash in front."""
    name = PurePosixPath(path.split("?d=")[-1]).name
    first, dash, original = name.partition("-")
    return original if dash and len(first) == 8 and all(c in "0123456789abcdef" for c in first) else name


def _label_studio_shapes(result: dict[str, Any]) -> Iterator[Shape]:
    kind, value = result["type"], result["value"]
    if kind in _NO_AREA:
        return
    label = str((value.get(kind) or ["object"])[0])
    if kind in ("polygonlabels", "polygon"):
        yield Shape(label, (tuple((x / 100, y / 100) for x, y in value["points"]),), relative=True)
    elif kind in ("rectanglelabels", "rectangle") and not value.get("rotation"):
        left, top = value["x"] / 100, value["y"] / 100
        right, bottom = left + value["width"] / 100, top + value["height"] / 100
        yield Shape(label, (((left, top), (right, top), (right, bottom), (left, bottom)),), relative=True)
    elif kind in ("brushlabels", "brush"):
        height, width = picture_size(result["original_height"], result["original_width"])
        yield Shape(label, runs=run_lengths_of_plane(brush_plane(value["rle"], height, width) > 127))
    else:
        raise AnnotationError(
            f"expected polygons, rectangles or brushes, got {kind!r}; let Label Studio export PNG masks"
        )


def brush_plane(packed: Sequence[int], height: int, width: int) -> NDArray[np.uint8]:
    """A brushed mask (H, W), 0 to 255: the last of four channels that Label Studio packs.

    The packing is thi.ng's: 32 bits of the number of values, 5 of a value's width less one, four times 4 of the widths
    of lengths less one; then runs, each a bit for "the same value throughout", two for the width of its length, the
    length less one, and its value or values.
    """
    bits = "".join(f"{byte:08b}" for byte in bytes(list(packed)))
    position = 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    total, width_of_value = take(32), take(5) + 1
    if width_of_value > 8:
        raise AnnotationError(f"rle: expected values of at most 8 bits, got {width_of_value}")
    if total != 4 * height * width:
        raise AnnotationError(f"rle: expected 4 x {height} x {width} values, got {total}")
    widths = [take(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    start = 0
    while start < total:
        repeats = take(1)
        end = start + 1 + take(widths[take(2)])
        if repeats:
            values[start:end] = take(width_of_value)
        else:
            values[start:end] = [take(width_of_value) for _ in range(start, end)]
        start = end
    return values.reshape(height, width, 4)[..., 3]


def read_supervisely(path: Path) -> Iterable[AnnotatedPicture]:
    """One JSON file a picture, called x.jpg.json: polygons with holes, rectangles, and packed masks with a corner."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    size = picture_size(content["size"]["height"], content["size"]["width"])
    shapes = [shape for entry in content["objects"] if (shape := _supervisely_shape(entry, size)) is not None]
    yield AnnotatedPicture(path.name.removesuffix(".json"), size, tuple(shapes))


def _supervisely_shape(entry: dict[str, Any], size: tuple[int, int]) -> Shape | None:
    label, kind = str(entry["classTitle"]), entry["geometryType"]
    if kind in ("point", "line", "graph", "any"):
        return None
    if kind == "polygon":
        outer, holes = entry["points"]["exterior"], entry["points"].get("interior") or []
        return Shape(label, (_outline(outer),), holes=tuple(_outline(hole) for hole in holes))
    if kind == "rectangle":
        (left, top), (right, bottom) = entry["points"]["exterior"]
        return Shape(label, (((left, top), (right + 1, top), (right + 1, bottom + 1), (left, bottom + 1)),))
    if kind == "bitmap":
        packed = base64.b64decode(entry["bitmap"]["data"])
        plane = plane_of_png(_unpacked(packed, size), entry["bitmap"]["origin"], size)
        return Shape(label, runs=run_lengths_of_plane(plane))
    raise AnnotationError(f"expected polygons, rectangles or bitmaps, got {kind!r}; let Supervisely export masks")


def plane_of_png(content: bytes, corner: Sequence[float], size: tuple[int, int]) -> Flags:
    """A packed mask, by its transparency where it has some, at its corner (x, y) in a picture of ``size`` (H, W).

    Raises:
        AnnotationError: it is larger than the picture, or damaged.
    """
    try:
        picture = Image.open(io.BytesIO(content))
        is_larger = picture.height > size[0] or picture.width > size[1]
        bitmap = np.asarray(Image.new("RGBA", (1, 1)) if is_larger else picture.convert("RGBA"))
    except Exception as error:  # PIL's decoders raise errors of many types on damaged files
        raise AnnotationError(f"expected a picture in a bitmap, got another or a damaged one: {error}") from error
    if is_larger:
        raise AnnotationError(f"expected a bitmap of at most {size} (H, W), got {picture.size[::-1]}")
    inside = bitmap[..., 3] > 0 if bitmap[..., 3].min() < 255 else bitmap[..., 0] > 0
    x, y = (int(value) for value in corner)
    plane: Flags = np.zeros(size, bool)
    plane[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return plane


def _unpacked(packed: bytes, size: tuple[int, int]) -> bytes:
    """A PNG of at most the picture's size, which no honest one exceeds by more than its headers."""
    limit = 5 * math.prod(size) + 2**16
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, limit)
    except zlib.error as error:
        raise AnnotationError(f"expected a zlib stream in a bitmap's data, got {error}") from error
    if not unpacker.eof:
        raise AnnotationError(f"expected a bitmap of at most {limit} bytes, got more, or a part of one")
    return content


def read_datumaro(path: Path) -> Iterable[AnnotatedPicture]:
    """Datumaro's own JSON: items with polygons and run lengths."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    names = [str(entry["name"]) for entry in content.get("categories", {}).get("label", {}).get("labels", [])]
    for item in content["items"]:
        picture = item.get("image") or item.get("media") or {}
        size = picture_size(*picture["size"]) if picture.get("size") else None
        shapes = []
        for annotation in sorted(
            item.get("annotations", []), key=lambda entry_of_item: entry_of_item.get("z_order", 0)
        ):
            number = annotation.get("label_id")
            label = names[number] if number is not None and number < len(names) else str(number)
            if annotation["type"] == "polygon":
                flat = annotation["points"]
                shapes.append(Shape(label, (_outline(zip(flat[::2], flat[1::2], strict=True)),)))
            elif annotation["type"] == "mask":
                counts = annotation["rle"]["counts"]
                runs = run_lengths_of(counts) if isinstance(counts, str) else tuple(int(count) for count in counts)
                shapes.append(Shape(label, runs=runs))
            elif annotation["type"] == "bbox":
                raise AnnotationError(f"{item['id']}: has a box and no outline: a box is no mask")
        name = str(picture.get("path") or item["id"])
        yield AnnotatedPicture(name, None if size is None else (size[0], size[1]), tuple(shapes))


def read_via(path: Path) -> Iterable[AnnotatedPicture]:
    """VGG Image Annotator's JSON, of a project or exported: polygons, rectangles, circles and ellipses in pixels."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    for entry in content.get("_via_img_metadata", content).values():
        regions = entry["regions"].values() if isinstance(entry["regions"], dict) else entry["regions"]
        shapes = [shape for region in regions if (shape := _via_shape(region)) is not None]
        yield AnnotatedPicture(str(entry["filename"]), None, tuple(shapes))


def _via_shape(region: dict[str, Any]) -> Shape | None:
    place, said = region["shape_attributes"], list(region.get("region_attributes", {}).values())
    value = said[0] if said else "object"
    label = str(
        next((name for name, chosen in value.items() if chosen), "object") if isinstance(value, dict) else value
    )
    kind = place["name"]
    if kind in ("polygon", "polyline"):
        outline = _outline(zip(place["all_points_x"], place["all_points_y"], strict=True))
        return Shape(label, (outline,)) if kind == "polygon" else None
    if kind == "rect":
        left, top, right, bottom = place["x"], place["y"], place["x"] + place["width"], place["y"] + place["height"]
        return Shape(label, (_outline([(left, top), (right, top), (right, bottom), (left, bottom)]),))
    if kind in ("circle", "ellipse"):
        across, down = (place["r"], place["r"]) if kind == "circle" else (place["rx"], place["ry"])
        lean, turns = place.get("theta", 0.0), [2 * math.pi * corner / _CORNERS for corner in range(_CORNERS)]
        offsets = [(across * math.cos(turn), down * math.sin(turn)) for turn in turns]
        c, s = math.cos(lean), math.sin(lean)
        outline = _outline((place["cx"] + c * x - s * y, place["cy"] + s * x + c * y) for x, y in offsets)
        return Shape(label, (outline,), is_round=True)
    if kind == "point":
        return None
    raise AnnotationError(f"expected polygons, rectangles, circles or ellipses, got {kind!r}")


def read_yolo(path: Path) -> Iterable[AnnotatedPicture]:
    """One text file a picture: a class number and the corners of an outline in shares of the picture, a line each."""
    classes = _yolo_names(path.parent)
    shapes = []
    for row, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        number, *corners = line.split()
        if len(corners) < 6 or len(corners) % 2:
            raise AnnotationError(
                f"line {row}: expected a class and the corners of an outline, got {len(corners)} numbers"
            )
        values = [float(corner) for corner in corners]
        label = classes[int(number)] if 0 <= int(number) < len(classes) else number
        shapes.append(Shape(label, (_outline(zip(values[::2], values[1::2], strict=True)),), relative=True))
    yield AnnotatedPicture(path.stem, None, tuple(shapes))


def _yolo_names(folder: Path) -> list[str]:
    """What class numbers are called: by a list of names, or the data's YAML, in the folder or in the two above it."""
    for place in (folder, *folder.parents[:2]):
        for path in (place / name for name in _NAME_FILES):
            if path.is_file():
                return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        for path in (place / name for name in _DATA_FILES):
            if path.is_file() and (names := _names_in_yaml(path.read_text(encoding="utf-8-sig"))):
                return names
    return []


def _names_in_yaml(text: str) -> list[str]:
    """The names under ``names:``, as a list or by their numbers, in either of YAML's ways to write them."""
    _, colon, rest = f"\n{text}".partition("\nnames:")
    first, *below = rest.split("\n") if colon else [""]
    if (opening := first.strip()[:1]) in ("[", "{"):
        entries = _ENTRIES.findall(rest.strip()[1:].partition("]" if opening == "[" else "}")[0])
    else:
        entries = list(itertools.takewhile(lambda line: line[:1] in ("", "-", " ", "\t", "#"), below))
    entries = [re.sub(r"(^|\s+)#.*", "", entry) for entry in entries]
    plain = [re.sub(r"^-\s+", "", entry.strip()) for entry in entries if entry.strip()]
    numbered = [pair for entry in plain if (pair := re.fullmatch(r"(\d+)\s*:\s*(.*)", entry))]
    if len(numbered) == len(plain):
        by_number = {int(pair.group(1)): pair.group(2) for pair in numbered if int(pair.group(1)) < _MOST_NAMES}
        plain = [by_number.get(number, str(number)) for number in range(max(by_number, default=-1) + 1)]
    return [entry.strip("'\" ") for entry in plain]


def _outline(points: Iterable[Sequence[float]]) -> Outline:
    return tuple((float(x), float(y)) for x, y in points)
