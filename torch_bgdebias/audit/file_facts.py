"""Features of a file beside its pixels: size, mode, compression, EXIF fields, and the words of its name."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["FileFacts", "fact_table", "file_facts", "name_words"]

#: numbers and words by view
FileFacts = dict[str, dict[str, float | str]]

_MODES = {"I;16": "16 bits", "I": "16 bits", "F": "float"}
#: EXIF tags, by their number: words, numbers, or the hour of a time
_EXIF_WORDS = {0x010F: "maker", 0x0110: "camera", 0x0131: "software", 0x0112: "orientation", 0xA434: "lens"}
_EXIF_NUMBERS = {0x829A: "exposure", 0x829D: "aperture", 0x8827: "sensitivity", 0x920A: "focal length"}
_EXIF_TIME = 0x9003
_EXIF_FOLDER = 0x8769
#: a column of words becomes so many columns of 0 and 1 at most
_MOST_WORDS = 24


def file_facts(path: Path) -> FileFacts:
    """What the file at ``path`` says by view: ``size``, ``compression``, ``file size``, ``exif``.

    Damaged headers say nothing: the view is empty then, and the pixels are read, or refused, elsewhere.
    """
    facts: FileFacts = {"size": {}, "compression": {}, "file size": {}, "exif": {}}
    try:
        with Image.open(path) as file:
            width, height = file.size
            facts["size"] = size_facts(width, height, _MODES.get(file.mode, file.mode))
            facts["compression"] = _compression(file)
            facts["exif"] = _exif(file)
        stored = path.stat().st_size
    except Exception:  # PIL's readers raise errors of many types on damaged files
        return facts
    facts["file size"] = {
        "bytes": math.log(max(stored, 1)),
        "bytes a pixel": math.log(stored / (width * height) + 0.01),
    }
    return facts


def size_facts(width: int, height: int, mode: str) -> dict[str, float | str]:
    """Numbers of a picture's size, and its mode."""
    sides = {"width": math.log(width), "height": math.log(height), "aspect": math.log(width / height)}
    return {**sides, "pixels": math.log(width * height), "mode": mode}


def _compression(file: Image.Image) -> dict[str, float | str]:
    facts: dict[str, float | str] = {"format": str(file.format)}
    tables = getattr(file, "quantization", None)
    if isinstance(tables, Mapping):
        sums = [float(sum(table)) for _, table in sorted(tables.items())]
        facts |= {f"quantisation table {number}": math.log(total + 1) for number, total in enumerate(sums[:2])}
        facts["tables"] = " ".join(f"{total:.0f}" for total in sums)
        facts["sampling"] = " ".join(f"{layer[1]}x{layer[2]}" for layer in getattr(file, "layer", ()) if len(layer) > 2)
    for name in ("progressive", "dpi", "interlace", "compression", "gamma", "icc_profile"):
        if name in file.info:
            value = file.info[name]
            facts[name] = "yes" if isinstance(value, bytes) else str(value)[:40]
    return facts


def _exif(file: Image.Image) -> dict[str, float | str]:
    raw: Any = file.getexif()
    inner = {**dict(raw), **dict(raw.get_ifd(_EXIF_FOLDER))}
    facts: dict[str, float | str] = {"tags": float(len(inner))}
    for tag, name in _EXIF_WORDS.items():
        if tag in inner:
            facts[name] = str(inner[tag]).strip("\0 ")[:60]
    for tag, name in _EXIF_NUMBERS.items():
        try:
            facts[name] = math.log(max(float(inner[tag]), 1e-6))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            continue
    hour = re.search(r" (\d\d):", str(inner.get(_EXIF_TIME, "")))
    if hour:
        facts["hour"] = float(hour[1])
    return facts


def name_words(path: Path, root: Path, label: str) -> dict[str, float | str]:
    """Words of a file's name and of the folders below its class, numbers and the class's own name taken out."""
    parts = path.relative_to(root).with_suffix("").parts if path.is_relative_to(root) else (path.stem,)
    folders = [part for part in parts[:-1] if part.casefold() not in (label.casefold(), "images")]
    stem = re.sub(re.escape(label), "", parts[-1], flags=re.IGNORECASE)
    start = re.match(r"[^\W\d_]+", stem)
    return {
        "prefix": start[0] if start else "",
        "pattern": re.sub(r"\d+", "9", stem)[:40],
        "folder": "/".join(folders),
        "length": float(len(stem)),
    }


def fact_table(facts: Sequence[Mapping[str, float | str]]) -> tuple[NDArray[np.float64], list[str]]:
    """Facts of all pictures as columns (N, D) with their names; words become columns of 0 and 1.

    Words that fewer than three pictures have share one column, as do those behind the most frequent.
    """
    names = dict.fromkeys(name for row in facts for name in row)
    columns: list[list[float]] = []
    titles: list[str] = []
    for name in names:
        values = [row.get(name) for row in facts]
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) == len(values):
            columns.append([math.nan if value is None else float(value) for value in numbers])
            titles.append(name)
            if any(value is None for value in values):
                columns.append([float(value is None) for value in values])
                titles.append(f"no {name}")
            continue
        counts = Counter(str(value) for value in values if value is not None)
        for word, count in counts.most_common(_MOST_WORDS):
            if count >= 3:
                columns.append([float(value == word) for value in values])
                titles.append(f"{name} {word or 'empty'}")
        columns.append([float(value is None or counts[str(value)] < 3) for value in values])
        titles.append(f"{name} rare or missing")
    if not columns:
        return np.empty((len(facts), 0)), []
    return np.array(columns).T, titles
