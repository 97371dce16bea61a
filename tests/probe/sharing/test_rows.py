"""A report as numbers and tables: what they hold is what the report holds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from probe_pages import NAMES, make_report

from torch_bgdebias.probe.sharing.rows import class_table, heat_pictures, image_table, numbers_of, was_hurt


def test_numbers_are_the_report_s_with_their_ends() -> None:
    report = make_report(score=True)
    numbers = numbers_of(report)
    assert report.bg_gap is not None
    assert numbers["bg_gap"] == report.bg_gap.value
    assert numbers["bg_gap_high"] == report.bg_gap.high
    assert numbers["accuracy/mixed_rand_low"] == report.variants["mixed_rand"].accuracy.low
    assert numbers["pixel_ratio/grad_cam"] == report.scores["pixel_ratio/grad_cam"].mean.value
    assert all(math.isfinite(value) for value in numbers.values())
    one = make_report(n=1)
    assert "bg_gap_low" not in numbers_of(one), "of one image there is no interval"


def test_classes_come_by_their_gap_with_what_they_are_worth() -> None:
    report = make_report()
    table = class_table(report)
    assert sorted(row[0] for row in table.rows) == sorted(NAMES)
    gaps = [abs(row[2]) for row in table.rows]
    assert gaps == sorted(gaps, reverse=True)
    of = {c.name: c for c in report.per_class}
    for row in table.rows:
        named = dict(zip(table.columns, row, strict=True))
        expected = of[named["class"]]
        assert named["images"] == expected.n
        assert named["bg_gap/low"] == expected.bg_gap.low
        assert named["accuracy/mixed_rand"] == expected.accuracy["mixed_rand"].value


def test_an_image_s_row_says_what_the_model_said_of_it() -> None:
    report = make_report(n=60, score=True)
    images = dataclasses.replace(report.images, position=np.arange(60)[::-1].copy())
    images.prediction["mixed_rand"][5] = -1
    report = dataclasses.replace(report, images=images)
    columns, rows = image_table(report)
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    assert len(table) == 60
    assert [row["position"] for row in table] == list(range(59, -1, -1))
    for i, row in enumerate(table):
        assert int(row["id"], 16) == i
        assert row["label"] == NAMES[i % 4]
        assert row["answer/original"] == NAMES[images.prediction["original"][i]]
        own, rand = (images.prediction[v][i] == i % 4 for v in ("mixed_same", "mixed_rand"))
        assert row["hurt"] == (own and not rand and i != 5)
    assert table[5]["answer/mixed_rand"] is None
    assert table[5]["confidence/mixed_rand"] is None
    assert table[0]["pixel_ratio/grad_cam"] is None, "NaN is not a number to a table"
    assert table[7]["pixel_ratio/grad_cam"] == pytest.approx(float(images.scores["pixel_ratio/grad_cam"][7]))


def test_nobody_is_hurt_where_nothing_is_known_of_it() -> None:
    report = make_report(n=20)
    unlabelled = dataclasses.replace(report.images, label=np.full(20, -1))
    assert was_hurt(dataclasses.replace(report, images=unlabelled)) is None
    del report.images.prediction["mixed_rand"]
    assert was_hurt(report) is None


def test_heatmaps_are_drawn_over_their_picture() -> None:
    (example,) = make_report(examples=1).examples
    drawn = heat_pictures(example)["grad_cam"]
    assert drawn.shape == (8, 10, 3)
    assert drawn[0, 0, 2] > drawn[0, 0, 0], "what speaks against the class is blue"
    assert drawn[0, 9, 0] > drawn[0, 9, 2]
