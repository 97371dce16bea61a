"""Data of picture tables: pictures are embedded, photographs as WebP, small drawings as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from torch_bgdebias.names import OBJECTLESS_VARIANTS
from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.page.sections import colour_key
from torch_bgdebias.probe.results.heatmaps import heat_picture
from torch_bgdebias.probe.results.images import Example
from torch_bgdebias.probe.results.measurement import Measurement
from torch_bgdebias.probe.results.naming import answer_is_right, answer_name, label_name
from torch_bgdebias.probe.results.spelling import VARIANT_WORDS, percent

__all__ = ["Cell", "ImageGrid", "embedded", "examples_section", "grid_section"]

#: pictures up to so many pixels a side are kept to the last bit: they are shown enlarged, and are small anyway
_EXACT_SIDE = 64
#: of WebP and JPEG; differences are not seen at the size at which a page shows them
_QUALITY = 80

_STYLES = {True: "right", False: "wrong", None: ""}


@dataclass(frozen=True)
class Cell:
    """One picture of a grid.

    Attributes:
        picture: uint8 (H, W, 3).
        lines: text under it with ``True`` (right), ``False`` (wrong) or ``None`` (neither).
        alt: what the picture shows, for those who do not see it.
        models: colour of the model that each line speaks for, a position in the grid's ``models``; may be empty.
    """

    picture: NDArray[np.uint8]
    lines: Sequence[tuple[str, bool | None]] = ()
    alt: str = ""
    models: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.picture.dtype != np.uint8 or self.picture.ndim != 3 or self.picture.shape[2] != 3:
            received = f"{self.picture.dtype} {self.picture.shape}"
            raise ValueError(f"picture: expected uint8 (H, W, 3), got {received}")
        if self.models and len(self.models) != len(self.lines):
            raise ValueError(f"models: expected one for each of {len(self.lines)} lines, got {len(self.models)}")


@dataclass(frozen=True)
class ImageGrid:
    """A table of pictures.

    Attributes:
        title: heading.
        columns: names of the columns.
        rows: (name, cells), a cell ``None`` where there is no picture.
        caption: what is to be seen.
        models: names for the key of colours, where cells say which model a line speaks for.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]] = field(default_factory=list)
    caption: str = ""
    models: Sequence[str] = ()


@dataclass(frozen=True)
class Line:
    """A line under a picture; ``colour`` is that of the model that it speaks for."""

    text: str
    style: str
    colour: int | None


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with its size and the lines under it."""

    source: str
    width: int
    height: int
    alt: str
    lines: Sequence[Line]


def grid_section(grid: ImageGrid, *, anchor: str = "") -> Section:
    """A table of pictures."""
    rows = [(name, [None if cell is None else _picture(cell) for cell in cells]) for name, cells in grid.rows]
    data = {"caption": grid.caption, "key": colour_key(grid.models), "columns": grid.columns, "rows": rows}
    return Section("pictures.html", data, anchor=anchor, heading=grid.title)


def examples_section(report: Measurement, *, anchor: str = "") -> Section:
    """The images that the change of background hurt most, as the report kept them."""
    variants = list(dict.fromkeys(name for e in report.examples for name in e.pictures))
    maps = list(dict.fromkeys(name for e in report.examples for name in e.heatmaps))
    heads = [f"heatmap: {name}" for name in maps]
    heads = [
        VARIANT_WORDS.get(variants[0], variants[0]),
        *heads,
        *(VARIANT_WORDS.get(name, name) for name in variants[1:]),
    ]
    ratios = _ratios(report, maps)
    rows = []
    for example in report.examples:
        cells = [_variant_cell(report, example, name) for name in variants]
        cells[1:1] = [_heat_cell(example, name, ratios[name].get(example.id)) for name in maps]
        rows.append((label_name(report, example), cells))
    caption = "Test images that were right before and wrong after their background changed, most confident first."
    if not report.images.labelled:
        caption = "Test images of which the model said something else after their background changed."
    if maps:
        caption += (
            " Heatmaps are of the image as given: red speaks for the class, blue against it, each on its own scale. "
            "The object is outlined, and the figure is its share of the positive evidence."
        )
    return grid_section(ImageGrid(f"Worst images: {report.model}", heads, rows, caption), anchor=anchor)


def _variant_cell(report: Measurement, example: Example, variant: str) -> Cell | None:
    if variant not in example.pictures:
        return None
    lines: list[tuple[str, bool | None]] = []
    if variant in example.prediction:
        answer = f"{answer_name(report, example, variant)} {percent(example.confidence[variant])}"
        # without the object there is no right or wrong answer
        lines = [(answer, None if variant in OBJECTLESS_VARIANTS else answer_is_right(example, variant))]
    return Cell(example.pictures[variant], lines, f"image {example.id}, {variant}")


def _heat_cell(example: Example, name: str, ratio: float | None) -> Cell | None:
    if name not in example.heatmaps:
        return None
    picture = heat_picture(example.pictures["original"], example.heatmaps[name], example.mask)
    words = "nothing speaks for it"
    if ratio is not None and np.isfinite(ratio):
        words = f"{percent(ratio)} on the object"
    return Cell(picture, [(words, None)], f"image {example.id}, heatmap of {name}")


def _ratios(report: Measurement, maps: Sequence[str]) -> dict[str, dict[int, float]]:
    """Pixel ratio by attribution and image."""
    ids = [int(id) for id in report.images.id]
    columns = {name: report.images.scores.get(f"pixel_ratio/{name}") for name in maps}
    return {
        name: {} if column is None else dict(zip(ids, map(float, column), strict=True))
        for name, column in columns.items()
    }


def embedded(picture: NDArray[np.uint8]) -> str:
    """A picture uint8 (H, W, 3) or (H, W) as a data URI.

    Up to 64 pixels a side it is a PNG, bit by bit the same; beyond that the smaller one of PNG (drawings) and WebP
    (photographs), or JPEG where Pillow was built without WebP.
    """
    image = Image.fromarray(np.ascontiguousarray(picture))
    encoded = [("png", _encoded(image, "PNG", optimize=True))]
    if max(image.size) > _EXACT_SIDE:
        lossy = "webp" if features.check("webp") else "jpeg"
        encoded.append((lossy, _encoded(image, lossy.upper(), quality=_QUALITY)))
    kind, content = min(encoded, key=lambda item: len(item[1]))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _picture(cell: Cell) -> Picture:
    height, width = cell.picture.shape[:2]
    colours: Sequence[int | None] = cell.models or [None] * len(cell.lines)
    lines = [Line(text, _STYLES[right], colour) for (text, right), colour in zip(cell.lines, colours, strict=True)]
    return Picture(embedded(cell.picture), width, height, cell.alt, lines)
