"""Noticing the files that annotation tools leave beside pictures, by what is in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["annotation_files", "annotation_kind"]

#: what of a file is looked at
_HEAD = 65536


def annotation_kind(path: Path) -> str | None:
    """The tool or format that wrote a file: ``"LabelMe"``, ``"COCO"``, ``"PASCAL VOC"``, ``"CVAT"``, or ``None``."""
    try:
        with open(path, "rb") as file:
            text = file.read(_HEAD).decode("utf-8", errors="replace")
    except OSError:
        return None
    if path.suffix.lower() == ".json":
        if '"shapes"' in text and ('"imageHeight"' in text or '"shape_type"' in text):
            return "LabelMe"
        if '"images"' in text and any(word in text for word in ('"annotations"', '"categories"', '"file_name"')):
            return "COCO"
        return None
    if path.suffix.lower() == ".xml":
        if "<annotations>" in text and ("<image " in text or "<meta>" in text):
            return "CVAT"
        return "PASCAL VOC" if "<annotation" in text and ("<object>" in text or "<filename>" in text) else None
    return None


def annotation_files(folders: Iterable[Path], *, look_at: int = 20) -> list[tuple[Path, str]]:
    """Annotation files directly in these folders, with their kinds.

    Args:
        folders: those that are not there are passed over.
        look_at: how many JSON and XML files of each folder are opened.
    """
    noticed = []
    for folder in dict.fromkeys(folders):
        if not folder.is_dir():
            continue
        candidates = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".json", ".xml"))
        for path in candidates[:look_at]:
            kind = annotation_kind(path)
            if kind is not None:
                noticed.append((path, kind))
    return noticed
