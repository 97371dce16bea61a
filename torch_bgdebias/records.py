"""Reads fields of untrusted files one by one; an error names the field.

Files are not trusted to be small either: what unpacks to more than it may, or is nested too deeply, is refused before
memory is spent on it.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Record", "Unpacker", "fields_of", "parse_json", "read_table"]

_INT64 = 2**63 - 1
_LARGEST_FILE = 2**29  # bytes; a report of 50,000 images has about 2**25
_DEEPEST = 64
#: larger numbers are no result of a measurement, and their hundredfold may be infinite
_LARGEST_NUMBER = 1e100


def fields_of(instance: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass by name; the values are not copied, unlike those of ``dataclasses.asdict``."""
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


def read_table(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The columns' names and the rows of a CSV file, each row with every column; empty where it is short.

    Raises:
        OSError: no such file. ValueError: not in UTF-8, fields of more than 128 KiB, or more of them than columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns, rows = list(reader.fieldnames or []), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a table (CSV in UTF-8), got a damaged one: {error}") from error
    for number, row in enumerate(rows, start=2):
        beyond: Any = row.pop(None, [])  # where csv puts what no column is for
        if any(beyond):
            raise ValueError(f"{path}, row {number}: expected {len(row)} fields, got {len(row) + len(beyond)}")
    return columns, rows


def parse_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not text.
        ValueError: it is not JSON, larger than 512 MB, or nested more than 64 deep.
    """
    if (size := Path(path).stat().st_size) > _LARGEST_FILE:
        raise ValueError(f"expected at most {_LARGEST_FILE} bytes, got {size}")
    text = Path(path).read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"expected at most {_DEEPEST} nested levels, got many more") from error
    level, depth = [content], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"expected at most {_DEEPEST} nested levels, got more")
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return content


class Unpacker:
    """Unpacks zlib texts up to a number of bytes, all together.

    Args:
        most: how many bytes.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self.left = limit

    def picture(self, packed: Record) -> NDArray[np.uint8]:
        """uint8 (h, w) or (h, w, 3) from ``{"shape": [...], "zlib_base64": "..."}``."""
        shape = packed.array("shape", np.int64).tolist()
        if len(shape) not in (2, 3) or min(shape) < 1 or math.prod(shape) > self.left:
            raise ValueError(f"{packed.at('shape')}: expected a picture of at most {self.left} bytes, got {shape}")
        return np.frombuffer(self._bytes(packed, math.prod(shape), shape), dtype=np.uint8).reshape(shape)

    def table(self, packed: Record) -> NDArray[np.float32]:
        """float32 (N, K) from the same layout, little-endian; NaN is kept, infinity refused."""
        shape = packed.array("shape", np.int64).tolist()
        if len(shape) != 2 or min(shape) < 1 or 4 * math.prod(shape) > self.left:
            raise ValueError(f"{packed.at('shape')}: expected a table of at most {self.left} bytes, got {shape}")
        numbers = np.frombuffer(self._bytes(packed, 4 * math.prod(shape), shape), dtype="<f4").reshape(shape)
        if bool(np.isinf(numbers).any()):
            raise ValueError(f"{packed.at('zlib_base64')}: expected finite numbers or NaN, got infinity")
        return numbers.astype(np.float32)

    def _bytes(self, packed: Record, size: int, shape: list[int]) -> bytes:
        field = packed.at("zlib_base64")
        unpacking = zlib.decompressobj()
        try:
            pixels = unpacking.decompress(base64.b64decode(packed.text("zlib_base64")), size + 1)
        except (ValueError, zlib.error) as error:
            raise ValueError(f"{field}: {error}") from error
        if len(pixels) != size or unpacking.unconsumed_tail:
            size_words = "more" if len(pixels) > size else len(pixels)
            raise ValueError(f"{field}: expected {size} bytes as its shape {shape} says, got {size_words}")
        self.left -= size
        return pixels


class Record:
    """Named fields; each method takes one out, or raises an error that names it.

    Args:
        data: a mapping.
        place: what it is called in errors; ``""`` for the whole file.

    Raises:
        KeyError: (methods) the field is missing.
        ValueError: the field is of another kind, or out of range.

    Example:
        >>> Record({"images": {"n": 3}}).record("images").whole("n")
        3
    """

    def __init__(self, data: object, place: str = "") -> None:
        self.place = place
        if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
            raise ValueError(f"{place or 'content'}: expected named fields, got {_value_words(data)}")
        self.fields: dict[str, Any] = dict(data)

    def at(self, name: str) -> str:
        """The field's name from the file's beginning."""
        return f"{self.place}.{name}" if self.place else name

    def value(self, name: str) -> Any:
        """As it is."""
        if name not in self.fields:
            raise KeyError(self.at(name))
        return self.fields[name]

    def text(self, name: str) -> str:
        """A text."""
        value = self.value(name)
        if not isinstance(value, str):
            raise ValueError(f"{self.at(name)}: expected a text, got {_value_words(value)}")
        return value

    def whole(self, name: str, least: int = -_INT64 - 1, most: int = _INT64) -> int:
        """A whole number in a range."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(
                f"{self.at(name)}: expected a whole number in [{least}, {most}], got {_value_words(value)}"
            )
        return value

    def number(self, name: str) -> float:
        """A finite number; NaN where it is ``None``."""
        value = self.value(name)
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST_NUMBER:
            raise ValueError(f"{self.at(name)}: expected a finite number or null, got {_value_words(value)}")
        return float(value)

    def record(self, name: str) -> Record:
        """Named fields inside."""
        return Record(self.value(name), self.at(name))

    def records(self, name: str) -> list[Record]:
        """A list of such."""
        return [Record(item, f"{self.at(name)}[{number}]") for number, item in enumerate(self._list(name))]

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        values = self._list(name)
        for number, value in enumerate(values):
            if not isinstance(value, str):
                raise ValueError(f"{self.at(name)}[{number}]: expected a text, got {_value_words(value)}")
        return values

    def array(self, name: str, dtype: type[np.generic]) -> NDArray[Any]:
        """A list of numbers, for floats with ``None`` for NaN; each must fit ``dtype``."""
        values = self._list(name)
        integers = np.issubdtype(dtype, np.integer)
        for number, value in enumerate(values):
            fitting = isinstance(value, int) if integers else value is None or isinstance(value, (int, float))
            if not fitting or isinstance(value, bool):
                kind = "a whole number" if integers else "a number or null"
                raise ValueError(f"{self.at(name)}[{number}]: expected {kind}, got {_value_words(value)}")
        least, most = _range(np.dtype(dtype))
        for number, value in enumerate(values):
            if value is not None and not least <= value <= most:
                kind = f"a finite {np.dtype(dtype).name}"
                raise ValueError(f"{self.at(name)}[{number}]: expected {kind}, got {_value_words(value)}")
        return np.asarray([math.nan if value is None else value for value in values], dtype=dtype)

    def nested(self, name: str, dimensions: int) -> NDArray[np.float64]:
        """Lists of lists of numbers, ``None`` for NaN, as float64 of so many dimensions."""
        try:
            array = np.array(self._list(name), dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self.at(name)}: expected numbers in lists of equal lengths: {error}") from error
        if array.ndim != dimensions or bool(np.isinf(array).any()):
            raise ValueError(
                f"{self.at(name)}: expected finite numbers in {dimensions} dimensions, got shape {array.shape}"
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def _list(self, name: str) -> list[Any]:
        value = self.value(name)
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{self.at(name)}: expected a list, got {_value_words(value)}")
        return list(value)


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The ends of a type's range as Python's numbers, which compare with any other exactly."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return float(np.finfo(dtype).min), float(np.finfo(dtype).max)


def _value_words(value: object) -> str:
    """A value's kind, and itself where it is short."""
    if isinstance(value, (str, float, int)) or value is None:
        text = "a huge number" if isinstance(value, int) and abs(value) > 10**100 else repr(value)
        return text if len(text) <= 60 else f"{text[:60]}..."
    return f"a {type(value).__name__}"
