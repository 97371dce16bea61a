"""A report as plain lists, numbers and text, and back: the layout of its JSON."""

from __future__ import annotations

import base64
import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.probe.results.concepts import ConceptTable
from torch_bgdebias.probe.results.images import Example, ImageResults
from torch_bgdebias.probe.results.measurement import ClassResult, Estimate, Measurement, ScoreResult, VariantResult

__all__ = ["SCHEMA", "measurement_from_dict", "measurement_to_dict", "plain"]

#: name and version of the JSON layout; a reader refuses others
SCHEMA = "torch_bgdebias.report/3"
#: layouts that can still be read: /2 had no concepts, /1 no heatmaps and masks of examples either
_READABLE = (SCHEMA, "torch_bgdebias.report/2", "torch_bgdebias.report/1")


def measurement_to_dict(report: Measurement) -> dict[str, Any]:
    """Everything in a report as JSON can hold it (NaN as ``None``), with the schema's name."""
    fields = {f.name: plain(getattr(report, f.name)) for f in dataclasses.fields(Measurement)}
    return {"schema": SCHEMA, **fields}


def plain(value: Any) -> Any:
    """A value as JSON can hold it: results as dicts, arrays as lists (pictures packed), NaN as ``None``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def _plain_array(array: NDArray[Any]) -> Any:
    if array.dtype == np.uint8:  # pictures: packed, for JSON lists of pixels are huge
        packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes())).decode("ascii")
        return {"shape": list(array.shape), "zlib_base64": packed}
    if array.dtype == np.float32:  # nine digits bring every float32 back exactly
        return [float(f"{x:.9g}") if math.isfinite(x) else None for x in array.tolist()]
    return array.tolist()


def _array(values: Any, dtype: Any) -> NDArray[Any]:
    if dtype is np.float32:
        values = [math.nan if x is None else x for x in values]
    return np.asarray(values, dtype=dtype)


def _picture(packed: Mapping[str, Any]) -> NDArray[np.uint8]:
    raw = zlib.decompress(base64.b64decode(packed["zlib_base64"]))
    return np.frombuffer(raw, dtype=np.uint8).reshape(packed["shape"])


def _estimate(data: Mapping[str, Any] | None) -> Estimate | None:
    return None if data is None else _some(data)


def _some(data: Mapping[str, Any]) -> Estimate:
    numbers = {name: math.nan if data[name] is None else float(data[name]) for name in ("value", "low", "high")}
    return Estimate(**numbers, n=int(data["n"]))


def _estimates(data: Mapping[str, Any]) -> dict[str, Estimate]:
    return {name: _some(item) for name, item in data.items()}


def _variant(data: Mapping[str, Any]) -> VariantResult:
    optional = {name: _estimate(data[name]) for name in ("decision_consistency", "feature_consistency")}
    return VariantResult(data["name"], _some(data["accuracy"]), int(data["n_left_out"]), **optional)


def _class(data: Mapping[str, Any]) -> ClassResult:
    grouped = {k: _estimates(data[k]) for k in ("accuracy", "decision_consistency", "feature_consistency", "scores")}
    return ClassResult(int(data["label"]), data["name"], int(data["n"]), bg_gap=_estimate(data["bg_gap"]), **grouped)


def _images(data: Mapping[str, Any]) -> ImageResults:
    types = {"prediction": np.int64, "confidence": np.float32, "cosine": np.float32}
    types |= {"background_label": np.int64, "scores": np.float32}
    columns = {name: {v: _array(x, dtype) for v, x in data[name].items()} for name, dtype in types.items()}
    position = None if data["position"] is None else _array(data["position"], np.int64)
    return ImageResults(_array(data["id"], np.uint64), _array(data["label"], np.int64), **columns, position=position)


def _example(data: Mapping[str, Any]) -> Example:
    complete = {"heatmaps": {}, "mask": None, **data}
    pictures, heatmaps = (
        {k: _picture(packed) for k, packed in complete[name].items()} for name in ("pictures", "heatmaps")
    )
    mask = None if complete["mask"] is None else _picture(complete["mask"])
    answers = (dict(data["prediction"]), dict(data["confidence"]))
    return Example(int(data["id"]), int(data["label"]), pictures, *answers, heatmaps, mask)


def measurement_from_dict(data: Mapping[str, Any]) -> Measurement:
    """The inverse of :func:`measurement_to_dict`.

    Raises:
        ValueError: another schema, or a field is missing, unknown or of another kind.
    """
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if schema not in _READABLE:
        family, _, version = str(schema).rpartition("/")
        newer = family == SCHEMA.rpartition("/")[0] and version.isdigit() and int(version) > int(SCHEMA.split("/")[1])
        hint = ": written by a newer torch_bgdebias, install that to read it" if newer else ""
        raise ValueError(f"schema: expected {SCHEMA!r}, got {schema!r}{hint}")
    if schema != SCHEMA:
        data = {"concepts": [], **data}
    wanted = {field.name for field in dataclasses.fields(Measurement)} | {"schema"}
    if wanted != set(data):
        missing, unknown = sorted(wanted - set(data)), sorted(set(data) - wanted)
        raise ValueError(f"report: missing fields {missing}, unknown fields {unknown}")
    try:
        report = _read_report(data)
    except KeyError as error:
        raise ValueError(f"report: a field is missing: {error}") from error
    except (TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"report: a field is not of the kind that to_json writes: {error}") from error
    _check_lengths(report.images)
    return report


def _check_lengths(images: ImageResults) -> None:
    """One row an image in every column: a file that was cut or edited would give wrong figures silently."""
    columns = {"label": images.label, "position": images.position}
    for what in ("prediction", "confidence", "cosine", "background_label", "scores"):
        columns |= {f"{what}/{name}": column for name, column in getattr(images, what).items()}
    for name, column in columns.items():
        if column is not None and column.shape != images.id.shape:
            raise ValueError(f"images.{name}: expected {len(images.id)} values, one an image, got {column.shape}")


def _read_report(data: Mapping[str, Any]) -> Measurement:
    return Measurement(
        model=data["model"],
        class_names=list(data["class_names"]),
        variants={name: _variant(item) for name, item in data["variants"].items()},
        bg_gap=_estimate(data["bg_gap"]),
        per_class=[_class(item) for item in data["per_class"]],
        images=_images(data["images"]),
        scores={
            name: ScoreResult(item["name"], _some(item["mean"]), int(item["n_undefined"]))
            for name, item in data["scores"].items()
        },
        counts={name: int(number) for name, number in data["counts"].items()},
        settings=dict(data["settings"]),
        versions=dict(data["versions"]),
        examples=[_example(item) for item in data["examples"]],
        concepts=[ConceptTable.from_dict(item) for item in data["concepts"]],
    )
