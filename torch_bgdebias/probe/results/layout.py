"""The JSON layout of a report: to plain lists, numbers and text, and back."""

from __future__ import annotations

import base64
import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.checks import check_confidence
from torch_bgdebias.probe.results.concepts import ConceptTable
from torch_bgdebias.probe.results.images import Example, ImageResults
from torch_bgdebias.probe.results.measurement import (
    ClassResult,
    Estimate,
    Measurement,
    ScoreResult,
    VariantResult,
    WorstPart,
)
from torch_bgdebias.probe.results.performance import area_gap, performance_of
from torch_bgdebias.probe.results.spelling import VARIANT_WORDS
from torch_bgdebias.records import Record, Unpacker, fields_of

__all__ = ["SCHEMA", "check_lengths", "measurement_from_dict", "measurement_to_dict", "plain"]

#: name and version of the JSON layout; a reader refuses others
SCHEMA = "torch_bgdebias.report/4"
#: layouts that can still be read: /3 had no label sets, groups and log odds, /2 no concepts, /1 no heatmaps and masks
#: of examples either
_READABLE = (SCHEMA, "torch_bgdebias.report/3", "torch_bgdebias.report/2", "torch_bgdebias.report/1")


#: written for readers of the file; computed again from the images when it is read
_DERIVED = ("performance", "auc_gap")


def measurement_to_dict(report: Measurement) -> dict[str, Any]:
    """Everything in a report as JSON can hold it (NaN as ``None``), with the schema's name."""
    fields = {f.name: plain(getattr(report, f.name)) for f in dataclasses.fields(Measurement)}
    derived = {"performance": plain(performance_of(report)), "auc_gap": plain(area_gap(report))}
    return {"schema": SCHEMA, **fields, **derived}


def plain(value: Any) -> Any:
    """A value as JSON can hold it: results as dicts, arrays as lists (pictures packed), NaN as ``None``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in fields_of(value).items()}
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
    if array.dtype == np.float32 and array.ndim == 2:  # a number a class and image: packed as well
        packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array, "<f4").tobytes())).decode("ascii")
        return {"shape": list(array.shape), "zlib_base64": packed}
    if array.dtype == np.float32:  # nine digits bring every float32 back exactly
        return [float(f"{x:.9g}") if math.isfinite(x) else None for x in array.tolist()]
    return array.tolist()


def _estimate(record: Record, name: str) -> Estimate:
    data = record.record(name)
    return Estimate(data.number("value"), data.number("low"), data.number("high"), data.whole("n"))


def _optional(record: Record, name: str) -> Estimate | None:
    return None if record.value(name) is None else _estimate(record, name)


def _estimates(record: Record, name: str) -> dict[str, Estimate]:
    data = record.record(name)
    return {key: _estimate(data, key) for key in data}


def _variant(data: Record) -> VariantResult:
    data = Record({"exact_match": None, **data.fields}, data.place)
    optional = {n: _optional(data, n) for n in ("decision_consistency", "feature_consistency", "exact_match")}
    return VariantResult(data.text("name"), _estimate(data, "accuracy"), data.whole("n_left_out"), **optional)


def _class(data: Record) -> ClassResult:
    grouped = {k: _estimates(data, k) for k in ("accuracy", "decision_consistency", "feature_consistency", "scores")}
    gap, p = _optional(data, "bg_gap"), data.number("gap_p") if "gap_p" in data.fields else math.nan
    return ClassResult(data.whole("label"), data.text("name"), data.whole("n"), bg_gap=gap, gap_p=p, **grouped)


def _worst(data: Record) -> WorstPart:
    if data.text("variant") not in VARIANT_WORDS:
        raise ValueError(f"{data.at('variant')}: expected {', '.join(VARIANT_WORDS)}, got {data.text('variant')!r}")
    return WorstPart(
        data.text("name"), data.text("variant"), _estimate(data, "accuracy"), data.whole("among"), data.number("floor")
    )


def _images(data: Record, unpacker: Unpacker) -> ImageResults:
    data = Record({"targets": None, "log_odds": {}, "groups": {}, "unit": None, **data.fields}, data.place)
    types: dict[str, type[np.generic]] = {"prediction": np.int64, "confidence": np.float32, "cosine": np.float32}
    types |= {"background_label": np.int64, "scores": np.float32}
    parts = {name: data.record(name) for name in types}
    columns = {name: {v: parts[name].array(v, dtype) for v in parts[name]} for name, dtype in types.items()}
    position = None if data.value("position") is None else data.array("position", np.int64)
    odds, groups = data.record("log_odds"), data.record("groups")
    return ImageResults(
        data.array("id", np.uint64),
        data.array("label", np.int64),
        **columns,
        position=position,
        targets=None if data.value("targets") is None else unpacker.picture(data.record("targets")),
        log_odds={v: unpacker.table(odds.record(v)) for v in odds},
        groups={name: np.asarray(groups.texts(name)) for name in groups},
        unit=None if data.value("unit") is None else np.asarray(data.texts("unit")),
    )


def _example(data: Record, unpacker: Unpacker) -> Example:
    data = Record({"heatmaps": {}, "mask": None, **data.fields}, data.place)
    groups = (data.record("pictures"), data.record("heatmaps"))
    pictures, heatmaps = ({name: unpacker.picture(group.record(name)) for name in group} for group in groups)
    mask = None if data.value("mask") is None else unpacker.picture(data.record("mask"))
    predicted, confident = data.record("prediction"), data.record("confidence")
    answers = ({v: predicted.whole(v) for v in pictures}, {v: confident.number(v) for v in pictures})
    return Example(data.whole("id", 0, 2**64 - 1), data.whole("label"), pictures, *answers, heatmaps, mask)


def measurement_from_dict(data: Mapping[str, Any]) -> Measurement:
    """The inverse of `measurement_to_dict`.

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
        data = {"concepts": [], "per_group": {}, "worst_class": None, "worst_group": {}, **data}
    data = {name: value for name, value in data.items() if name not in _DERIVED}
    expected = {field.name for field in dataclasses.fields(Measurement)} | {"schema"}
    if expected != set(data):
        missing, unknown = sorted(expected - set(data)), sorted(set(data) - expected)
        raise ValueError(f"report: missing fields {missing}, unknown fields {unknown}")
    try:
        report = _read_report(Record(data))
    except KeyError as error:
        raise ValueError(f"report: a field is missing: {error}") from error
    except ValueError as error:
        raise ValueError(f"report: a field is not of the kind that to_json writes: {error}") from error
    check_lengths(report.images)
    return report


def check_lengths(images: ImageResults) -> None:
    """One row an image in every column: a file that was cut or edited would give wrong figures silently."""
    columns: dict[str, NDArray[Any] | None] = {"label": images.label, "position": images.position}
    for field in ("prediction", "confidence", "cosine", "background_label", "scores"):
        columns |= {f"{field}/{name}": column for name, column in getattr(images, field).items()}
    columns |= {"unit": images.unit, **{f"groups/{name}": column for name, column in images.groups.items()}}
    for name, column in columns.items():
        if column is not None and column.shape != images.id.shape:
            raise ValueError(f"images.{name}: expected {len(images.id)} values, one an image, got {column.shape}")
    tables = {"targets": images.targets, **{f"log_odds/{name}": table for name, table in images.log_odds.items()}}
    shapes = {name: table.shape for name, table in tables.items() if table is not None}
    for name, shape in shapes.items():
        if shape[0] != len(images.id) or len(set(shapes.values())) > 1:
            raise ValueError(f"images.{name}: expected {len(images.id)} rows, all tables of one width, got {shape}")
    highest = max((int(answers.max(initial=-1)) for answers in (images.label, *images.prediction.values())), default=-1)
    if images.targets is None and shapes and highest >= next(iter(shapes.values()))[1]:
        raise ValueError(f"images.log_odds: class {highest} is given, and there are {next(iter(shapes.values()))[1]}")
    if incomplete := sorted(set(images.log_odds) - (set(images.prediction) & set(images.confidence))):
        raise ValueError(f"images.log_odds: {incomplete[0]} has log odds, and no prediction or no confidence")
    if images.targets is not None and set(images.prediction) - set(images.log_odds):
        raise ValueError("images.log_odds: expected log odds in every variant, for the labels are sets")


def _read_report(data: Record) -> Measurement:
    variants, scores, counts = data.record("variants"), data.record("scores"), data.record("counts")
    unpacker, versions = Unpacker(), data.record("versions")
    groups, worst = data.record("per_group"), data.record("worst_group")
    return Measurement(
        model=data.text("model"),
        class_names=data.texts("class_names"),
        variants={name: _variant(variants.record(name)) for name in variants},
        bg_gap=_optional(data, "bg_gap"),
        per_class=[_class(item) for item in data.records("per_class")],
        images=_images(data.record("images"), unpacker),
        scores={name: _score(scores.record(name)) for name in scores},
        counts={name: counts.whole(name) for name in counts},
        settings=_settings(data.record("settings")),
        versions={name: versions.value(name) for name in versions},
        examples=[_example(item, unpacker) for item in data.records("examples")],
        concepts=[ConceptTable.from_record(item) for item in data.records("concepts")],
        per_group={name: [_class(item) for item in groups.records(name)] for name in groups},
        worst_class=None if data.value("worst_class") is None else _worst(data.record("worst_class")),
        worst_group={name: _worst(worst.record(name)) for name in worst},
    )


def _settings(data: Record) -> dict[str, Any]:
    """Anything may stand there, but those that are computed with are what they are."""
    if "confidence" in data.fields:
        check_confidence(data.number("confidence"), name=data.at("confidence"))
    if data.fields.get("score_settings") is not None:
        data.record("score_settings")
    return data.fields


def _score(data: Record) -> ScoreResult:
    return ScoreResult(data.text("name"), _estimate(data, "mean"), data.whole("n_undefined"))
