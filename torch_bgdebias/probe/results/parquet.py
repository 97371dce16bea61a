"""A measurement as one Parquet file: per-image results in columns, everything else in its metadata.

For millions of results: JSON holds them all as text at once. Tables of a number a class (log odds, label sets) are
columns of lists.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias._optional import require
from torch_bgdebias.probe.results.agreement import require_agreement
from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.layout import check_lengths, measurement_from_dict, measurement_to_dict
from torch_bgdebias.probe.results.measurement import Measurement
from torch_bgdebias.writing import whole_file

__all__ = ["measurement_from_parquet", "measurement_to_parquet"]

#: where the file keeps what is not of one image
_REST = b"torch_bgdebias.report"
#: images written at once
_ROWS = 65_536
#: columns of a name each, their types, and whether they are tables
_NAMED: dict[str, tuple[type[np.generic], bool]] = {
    "prediction": (np.int64, False),
    "confidence": (np.float32, False),
    "cosine": (np.float32, False),
    "background_label": (np.int64, False),
    "scores": (np.float32, False),
    "log_odds": (np.float32, True),
    "groups": (np.str_, False),
}
_SINGLE: dict[str, tuple[type[np.generic], bool]] = {
    "id": (np.uint64, False),
    "label": (np.int64, False),
    "position": (np.int64, False),
    "targets": (np.uint8, True),
    "unit": (np.str_, False),
}


def measurement_to_parquet(report: Measurement, path: str | Path) -> None:
    """Write everything in a report; the file takes its name when it is whole.

    Raises:
        ImportError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    arrow = require("pyarrow", purpose="writing Parquet")
    parquet = require("pyarrow.parquet", purpose="writing Parquet")
    columns = dict(_columns(report.images))
    no_images = ImageResults(np.zeros(0, np.uint64), np.zeros(0, np.int64), {}, {})
    without_images = measurement_to_dict(dataclasses.replace(report, images=no_images))
    types = [(name, _type_of(arrow, column)) for name, column in columns.items()]
    schema = arrow.schema(types, metadata={_REST: json.dumps(without_images, allow_nan=False)})
    with whole_file(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for start in range(0, max(len(report.images), 1), _ROWS):
            part = {name: column[start : start + _ROWS] for name, column in columns.items()}
            arrays = [_arrow_array(arrow, part[name], kind) for name, kind in types]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def measurement_from_parquet(path: str | Path) -> Measurement:
    """Read what `measurement_to_parquet` wrote.

    Raises:
        ImportError: pyarrow is not installed.
        OSError: no such file, or it cannot be read.
        ValueError: not such a file, another schema, or a column is missing.
    """
    parquet = require("pyarrow.parquet", purpose="reading Parquet")
    expected = "expected a report's Parquet file, as BackgroundBiasReport.to_parquet writes it"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: {expected}; no such file")
    try:
        texts = [name for name in parquet.read_schema(path).names if name.partition("/")[0] in ("unit", "groups")]
        with parquet.ParquetFile(path, read_dictionary=texts) as file:  # texts that are repeated stay one
            _require_bounded(file, path)
            table = file.read()
        names = table.column_names
    except _UnfoldsError as error:
        raise ValueError(f"{path}: {error}") from error
    except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's errors of a format are such
        raise ValueError(f"{path}: {expected}; {str(error).splitlines()[0]}") from error
    metadata = table.schema.metadata or {}
    if _REST not in metadata:
        raise ValueError(f"{path}: {expected}; it has the columns {', '.join(names[:6])}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path}: {expected}; it has the column {twice[0]!r} {names.count(twice[0])} times")
    columns: dict[str, NDArray[Any]] = {}
    for name in names:
        kind, is_table = {**_SINGLE, **_NAMED}.get(name.partition("/")[0], (None, False))
        if kind is None:
            raise ValueError(f"{path}: {expected}; it has a column {name!r}")
        try:
            if kind is np.str_:
                columns[name] = _texts(table.column(name), path)
                continue
            columns[name] = _numpy_array(table.column(name), kind, is_table)
        except _UnfoldsError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
        except (AttributeError, TypeError, ValueError, ArithmeticError, NotImplementedError) as error:
            expected_type = "a list of numbers" if is_table else "a number" if kind is not np.str_ else "a text"
            raise ValueError(
                f"{path}: {name}: expected {expected_type} an image, got {table.column(name).type}"
            ) from error
    if absent := [name for name in ("id", "label") if name not in columns]:
        raise ValueError(f"{path}: {expected}; it has no column {absent[0]!r}")
    try:
        report = measurement_from_dict(json.loads(metadata[_REST].decode()))
        images = _images(columns)
        check_lengths(images)
        report = dataclasses.replace(report, images=images)
        require_agreement(report)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return report


class _UnfoldsError(ValueError):
    """A file that unfolds to far more than a report of its size holds."""


def _memory_limit(path: str | Path) -> int:
    """Bytes in memory that a report's file may become: its fingerprints alone are 8 an image that nothing packs."""
    return 2**28 + 64 * Path(path).stat().st_size


def _require_bounded(file: Any, path: str | Path) -> None:
    """Refuse a bomb before it is unpacked: rows that repeat one value, wide lists, and pages that are packed well."""
    metadata, limit = file.metadata, _memory_limit(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
    width = sum(8 * max(getattr(column.type, "list_size", 1), 1) for column in file.schema_arrow)
    pages = sum(group.total_byte_size for group in groups)  # what a column says of itself may end Python: an abort
    if (largest := max(rows * width, pages)) > limit:
        raise _UnfoldsError(f"expected at most {limit} bytes in memory of a file of this size, got {largest}")


def _texts(column: Any, path: str | Path) -> NDArray[Any]:
    """A text an image; numpy holds each at the length of the longest."""
    parts: list[NDArray[Any]] = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist() if hasattr(chunk, "dictionary") else chunk.to_pylist()
        if chunk.null_count or not all(isinstance(word, str) for word in words):
            raise TypeError("no text")
        unfolded = 4 * len(column) * max(map(len, words), default=0)
        if unfolded > _memory_limit(path):
            raise _UnfoldsError(
                f"expected at most {_memory_limit(path)} bytes of texts of a file of this size, got {unfolded}"
            )
        table = np.asarray(words, np.str_)
        parts.append(table[chunk.indices.to_numpy()] if hasattr(chunk, "dictionary") else table)
    return np.concatenate(parts) if parts else np.zeros(0, np.str_)


def _columns(images: ImageResults) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in _SINGLE:
        if getattr(images, name) is not None:
            yield name, getattr(images, name)
    for name in _NAMED:
        for key, column in getattr(images, name).items():
            yield f"{name}/{key}", column


def _images(columns: dict[str, NDArray[Any]]) -> ImageResults:
    by_field: dict[str, Any] = {name: {} for name in _NAMED}
    for full, column in columns.items():
        name, slash, key = full.partition("/")
        if slash:
            by_field[name][key] = column
    return ImageResults(**{name: columns.get(name) for name in _SINGLE}, **by_field)  # type: ignore[arg-type]


def _type_of(arrow: Any, column: NDArray[Any]) -> Any:
    inner = arrow.string() if column.dtype.kind == "U" else arrow.from_numpy_dtype(column.dtype)
    return arrow.list_(inner, column.shape[1]) if column.ndim == 2 else inner


def _arrow_array(arrow: Any, column: NDArray[Any], kind: Any) -> Any:
    if column.ndim == 2:
        return arrow.FixedSizeListArray.from_arrays(arrow.array(column.reshape(-1)), type=kind)
    return arrow.array(column.tolist() if column.dtype.kind == "U" else column, type=kind)


def _numpy_array(column: Any, kind: type[np.generic], is_table: bool) -> NDArray[Any]:
    if is_table:
        width = column.type.list_size
        parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        return np.concatenate([np.zeros(0), *parts]).astype(kind).reshape(-1, width)
    return np.asarray(column.to_numpy(), kind)
