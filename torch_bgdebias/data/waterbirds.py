"""``Waterbirds``: birds on backgrounds that correlate with their class, as (image, label, mask, place)."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from torch_bgdebias.checks import check_option
from torch_bgdebias.data.masked_files import MaskedFiles
from torch_bgdebias.data.tensors import JointTransform
from torch_bgdebias.files import first_few, folder_listing, open_image, require_files
from torch_bgdebias.masks.reading import open_mask

__all__ = ["Waterbirds"]

_PARTS = ("train", "val", "test")
#: what others call them
_OTHER_WORDS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


class Waterbirds(MaskedFiles):
    """Folders in the layout of Waterbirds: birds pasted onto backgrounds that correlate with their class.

    ``metadata.csv`` in the root has the columns ``img_filename``, ``y`` (class), ``split`` (0 train, 1 val, 2 test) and
    ``place`` (background class). Items are (image, label, mask, place), read with ``BatchSpec(background_label=3)``;
    without ``masks`` they are (image, label, place): ``BatchSpec(mask=None, background_label=2)``.

    Args:
        root: folder with ``metadata.csv`` and the images.
        split: ``"train"``, ``"val"`` or ``"test"``.
        masks: folder with ``<img_filename>`` as .png: the ``segmentations`` of CUB-200-2011. Their grey levels (how
            many annotators agreed) are a soft mask.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask); without masks it gets a full one.

    Attributes:
        places: the background class of every sample.

    Raises:
        FileNotFoundError: no ``metadata.csv``, or images or masks that are missing (the first few are listed).
        ValueError: unknown split, no sample in it, or columns that are missing.
    """

    classes = ("landbird", "waterbird")

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        masks: str | Path | None = None,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
    ) -> None:
        super().__init__(size, transform)
        check_option(split, _PARTS, name="split")
        table = Path(root) / "metadata.csv"
        if not table.is_file():
            raise FileNotFoundError(
                f"{root}: expected metadata.csv in it, found {first_few(folder_listing(Path(root)))}"
            )
        rows = [row for row in _rows(table) if row.part == split]
        if not rows:
            raise ValueError(f"split: {table} has no sample of {split!r}")
        self.images = [_local_path(Path(root), row.name) for row in rows]
        self.labels = [row.label for row in rows]
        self.places = [row.place for row in rows]
        self.masks = (
            None
            if masks is None
            else [_local_path(Path(masks), str(Path(row.name).with_suffix(".png"))) for row in rows]
        )
        require_files(self.images, root)
        if self.masks is not None:
            require_files(self.masks, str(masks))

    def __getitem__(self, index: int) -> Any:
        image, mask = self._pair(index)
        if self.masks is None:
            return image, self.labels[index], self.places[index]
        return image, self.labels[index], mask, self.places[index]

    def _mask(self, index: int) -> Image.Image:
        if self.masks is None:
            return Image.new("L", open_image(self.images[index]).size, 255)
        return open_mask(self.masks[index], encoding="soft")


class _Row(NamedTuple):
    """One line of ``metadata.csv``."""

    name: str
    label: int
    part: str
    place: int


def _local_path(folder: Path, name: str) -> Path:
    """A file by its name in the table, which another system may have written."""
    as_written, normalised = folder / name, folder / name.replace("\\", "/").lstrip("/")
    return normalised if normalised.is_file() and not as_written.is_file() else as_written


def _read_lines(table: Path) -> list[dict[str, str]]:
    """The table's lines by lower-case column, whatever separates them: spreadsheets write commas, semicolons, tabs."""
    data = table.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: expected text in UTF-8, got other bytes ({error}); save it as UTF-8") from error
    header = text.splitlines()[0] if text else ""
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        names, *rows = [row for row in reader if any(cell.strip() for cell in row)] or [[]]
    except csv.Error as error:
        raise ValueError(f"{table}: expected a table (CSV), got a damaged one: {error}") from error
    columns = [name.strip().lower() for name in names]
    return [dict(zip(columns, [*row, *[""] * len(columns)], strict=False)) for row in rows]


def _rows(table: Path) -> list[_Row]:
    """The lines of ``metadata.csv``, as pandas and spreadsheets write them (a byte order mark, 0.0, names of parts)."""
    columns = {"img_filename", "y", "split", "place"}
    lines = _read_lines(table)
    if not lines or not columns <= lines[0].keys():
        header = sorted(lines[0]) if lines else "no line below a header"
        raise ValueError(f"{table}: expected the columns {sorted(columns)} and lines below, got {header}")

    def number(line: dict[str, str], row: int, column: str) -> int:
        text = (line[column] or "").strip()
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not value.is_integer() or value < 0:  # infinity and NaN are no whole numbers either
            raise ValueError(f"{table}, row {row}, column {column}: expected a whole number from 0, got {text!r}")
        if column == "y" and value >= len(Waterbirds.classes):
            expected = ", ".join(f"{i} {name}" for i, name in enumerate(Waterbirds.classes))
            raise ValueError(f"{table}, row {row}, column y: expected a class ({expected}), got {text!r}")
        return int(value)

    def part(line: dict[str, str], row: int) -> str:
        text = (line["split"] or "").strip().lower()
        if (text := _OTHER_WORDS.get(text, text)) in _PARTS:
            return text
        index = number(line, row, "split")
        if index >= len(_PARTS):
            raise ValueError(f"{table}, row {row}, column split: expected 0 train, 1 val or 2 test, got {text!r}")
        return _PARTS[index]

    return [
        _Row(line["img_filename"].strip(), number(line, row, "y"), part(line, row), number(line, row, "place"))
        for row, line in enumerate(lines, start=2)
    ]
