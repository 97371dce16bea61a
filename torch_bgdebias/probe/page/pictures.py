"""Tables of pictures in the HTML report: each picture is a PNG inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.probe.page.charts import percent
from torch_bgdebias.probe.page.sections import OBJECTLESS, VARIANTS, key, section
from torch_bgdebias.probe.passes.heatmaps import heat_picture
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport, Example

__all__ = ["Cell", "ImageGrid", "examples", "grid", "png"]


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
            got = f"{self.picture.dtype} {self.picture.shape}"
            raise ValueError(f"picture: expected uint8 (H, W, 3), got {got}")
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


def grid(grid: ImageGrid, *, anchor: str = "") -> str:
    """A table of pictures, each a PNG inside the page."""
    heads = "".join(f"<th scope='col'>{escape(c)}</th>" for c in grid.columns)
    body = []
    for name, cells in grid.rows:
        shown = "".join(f"<td>{_picture(c) if c is not None else ''}</td>" for c in cells)
        body.append(f"<tr><th scope='row'>{escape(name)}</th>{shown}</tr>")
    caption = f"<p class='note'>{escape(grid.caption)}</p>" if grid.caption else ""
    table = f"<table class='pictures'><thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return section(grid.title, f"{caption}{key(grid.models)}<div class='wide'>{table}</div>", anchor=anchor)


def examples(report: BackgroundBiasReport) -> str:
    """The images that the change of background hurt most, as the report kept them."""
    shown = list(dict.fromkeys(name for e in report.examples for name in e.pictures))
    maps = list(dict.fromkeys(name for e in report.examples for name in e.heatmaps))
    heads = [f"heatmap: {name}" for name in maps]
    heads = [VARIANTS.get(shown[0], shown[0]), *heads, *(VARIANTS.get(name, name) for name in shown[1:])]
    ratios = _ratios(report, maps)
    rows = []
    for example in report.examples:
        cells = [_variant_cell(report, example, name) for name in shown]
        cells[1:1] = [_heat_cell(example, name, ratios[name].get(example.id)) for name in maps]
        rows.append((_class_name(report, example.label), cells))
    told = "Test images that were right before and wrong after their background changed, most confident first."
    if maps:
        told += (
            " Heatmaps are of the image as given: red speaks for the class, blue against it, each on its own scale. "
            "The object is outlined, and the figure is its share of the positive evidence."
        )
    return grid(ImageGrid(f"Worst images: {report.model}", heads, rows, told))


def _variant_cell(report: BackgroundBiasReport, example: Example, variant: str) -> Cell | None:
    if variant not in example.pictures:
        return None
    lines: list[tuple[str, bool | None]] = []
    if variant in example.prediction:
        said = example.prediction[variant]
        told = f"{_class_name(report, said)} {percent(example.confidence[variant])}"
        # without the object nothing is right or wrong to say
        lines = [(told, None if variant in OBJECTLESS else said == example.label)]
    return Cell(example.pictures[variant], lines, f"image {example.id}, {variant}")


def _heat_cell(example: Example, name: str, ratio: float | None) -> Cell | None:
    if name not in example.heatmaps:
        return None
    picture = heat_picture(example.pictures["original"], example.heatmaps[name], example.mask)
    known = ratio is not None and np.isfinite(ratio)
    told = f"{percent(ratio)} on the object" if known and ratio is not None else "nothing speaks for it"
    return Cell(picture, [(told, None)], f"image {example.id}, heatmap of {name}")


def _ratios(report: BackgroundBiasReport, maps: Sequence[str]) -> dict[str, dict[int, float]]:
    """Pixel ratio by attribution and image."""
    ids = [int(id) for id in report.images.id]
    columns = {name: report.images.scores.get(f"pixel_ratio/{name}") for name in maps}
    return {
        name: {} if column is None else dict(zip(ids, map(float, column), strict=True))
        for name, column in columns.items()
    }


def png(picture: NDArray[np.uint8]) -> str:
    """A picture uint8 (H, W, 3) or (H, W) as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _picture(cell: Cell) -> str:
    height, width = cell.picture.shape[:2]
    marks = {True: "right", False: "wrong", None: ""}
    dots = [f"<i class='dot k{model % 6}'></i>" for model in cell.models] or [""] * len(cell.lines)
    lines = "".join(
        f"<span class='{marks[ok]}'>{dot}{escape(text)}</span>"
        for (text, ok), dot in zip(cell.lines, dots, strict=True)
    )
    image = f"<img src='{png(cell.picture)}' width='{width}' height='{height}' alt='{escape(cell.alt, quote=True)}'>"
    return image + lines


def _class_name(report: BackgroundBiasReport, label: int) -> str:
    return report.class_names[label] if 0 <= label < len(report.class_names) else str(label)
