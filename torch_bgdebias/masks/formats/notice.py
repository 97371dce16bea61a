"""Detects annotation files beside pictures by their contents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["BOXES_ALONE", "BOX_TABLE", "RUN_LENGTHS", "RUN_LENGTH_TABLE", "annotation_files", "annotation_kind"]

#: kinds that hold boxes and no outlines
BOXES_ALONE = ("PASCAL VOC", "YOLO boxes")

#: COCO's run lengths without what COCO puts around them
RUN_LENGTHS = "run lengths"
#: starts and lengths in a table or a text, as competitions have them
RUN_LENGTH_TABLE = "starts and lengths of runs"

#: a table of boxes, which `torch_bgdebias.masks.formats.boxes` reads
BOX_TABLE = "boxes in a table"
#: columns of a box in such a table
BOX_COLUMNS = (
    *(("left", "top", "right", "bottom"), ("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2")),
    ("x", "y", "width", "height"),
)

#: endings of files that are looked into
_ENDINGS = (".csv", ".json", ".tsv", ".txt", ".xml")
#: starts and lengths; from a number's first digit on, or a long one would be tried from each of its digits
_NUMBERS = re.compile(r"(?<!\d)\d+(?: \d+){5,}")
#: numbers in a line whose outline is the whole picture
_CORNERS_OF_A_PICTURE = 11
#: what of a file is looked at
_HEAD = 65536


def annotation_kind(path: Path) -> str | None:
    """The tool or format that wrote a file, or ``None``.

    ``"LabelMe"``, ``"COCO"``, ``"CVAT"``, ``"Label Studio"``, ``"Supervisely"``, ``"Datumaro"``, ``"VIA"``, ``"YOLO"``;
    ``"PASCAL VOC"`` and ``"YOLO boxes"``, which hold no outlines.
    """
    text = _head_of(path)
    if path.suffix.lower() == ".json":
        if '"shapes"' in text and ('"imageHeight"' in text or '"shape_type"' in text):
            return "LabelMe"
        if '"original_width"' in text and '"from_name"' in text:
            return "Label Studio"
        if '"regions"' in text and '"shape_attributes"' in text:
            return "VIA"
        if '"objects"' in text and '"geometryType"' in text:
            return "Supervisely"
        if '"items"' in text and '"label_id"' in text:
            return "Datumaro"
        if '"images"' in text and any(word in text for word in ('"annotations"', '"categories"', '"file_name"')):
            return "COCO"
        return None
    if path.suffix.lower() == ".xml":
        if "<annotations>" in text and ("<image " in text or "<meta>" in text):
            return "CVAT"
        return "PASCAL VOC" if "<annotation" in text and ("<object>" in text or "<filename>" in text) else None
    if path.suffix.lower() == ".txt":
        return _yolo_kind(text[: text.rfind("\n")] if len(text) >= _HEAD and "\n" in text else text)
    return None


def _head_of(path: Path) -> str:
    """The beginning of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def _yolo_kind(text: str) -> str | None:
    """Lines of a whole number and shares: four of a box, six or more of an outline."""
    lines = text.split("\n")
    rows = [line.split() for line in lines if line.strip()]
    if not rows or not all(row[0].isdecimal() and len(row) >= 5 for row in rows):
        return None
    try:
        shares = [float(value) for row in rows for value in row[1:]]
    except ValueError:
        return None
    if not all(-0.01 <= share <= 1.01 for share in shares):
        return None
    if set(shares) <= {0, 1} and len(rows[0]) > _CORNERS_OF_A_PICTURE:  # a mask, number by number
        return None
    return "YOLO boxes" if all(len(row) == 5 for row in rows) else "YOLO"


def annotation_files(folders: Iterable[Path], *, look_at: int = 20) -> list[tuple[Path, str]]:
    """Annotation files directly in these folders, with their kinds.

    ``RUN_LENGTHS`` and ``RUN_LENGTH_TABLE`` are not read, only noticed.

    Args:
        folders: those that are not there are passed over.
        look_at: how many JSON, XML, text and table files of each folder are opened.
    """
    noticed = []
    for folder in dict.fromkeys(folders):
        if not folder.is_dir():
            continue
        candidates = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
        for path in candidates[:look_at]:
            kind = annotation_kind(path)
            if kind is None and path.suffix.lower() == ".json" and '"counts"' in (text := _head_of(path)):
                kind = RUN_LENGTHS if '"size"' in text else None
            if kind is None and path.suffix.lower() in (".csv", ".tsv", ".txt") and _holds_runs(_head_of(path)):
                kind = RUN_LENGTH_TABLE
            if kind is None and path.suffix.lower() == ".csv" and _holds_boxes(_head_of(path)):
                kind = BOX_TABLE
            if kind is not None:
                noticed.append((path, kind))
    return noticed


def _holds_runs(text: str) -> bool:
    """Whether there are three runs or more in one field: starts that grow by more than the lengths between them."""
    for match in _NUMBERS.finditer(text):
        numbers = [int(number) for number in match.group().split()]
        starts, lengths = numbers[::2], numbers[1::2]
        ends = [start + length for start, length in zip(starts, lengths, strict=False)]
        if all(end <= start for end, start in zip(ends, starts[1:], strict=False)) and min(lengths) > 0:
            return True
    return False


def _holds_boxes(text: str) -> bool:
    """Whether a table's first line names the columns of a box."""
    names = {name.strip().strip('"').lower() for name in re.split("[,;\t]", text.partition("\n")[0])}
    return any(names.issuperset(columns) for columns in BOX_COLUMNS)
