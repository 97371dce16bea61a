"""A report that was read is one whose figures its images give."""

from __future__ import annotations

import json

import pytest
from probe_pages import make_report

from torch_bgdebias.probe import BackgroundBiasReport


def changed(change):
    content = json.loads(json.dumps(make_report().to_dict()))
    change(content)
    return content


def answers_right(content):
    content["images"]["prediction"]["mixed_rand"] = content["images"]["label"]


def one_lost(content):
    content["per_class"][0]["n"] += 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c["bg_gap"].update(value=0.01), r"bg_gap: 0.01 does not follow from the images' answers"),
        (lambda c: c["variants"]["original"]["accuracy"].update(value=1.0), r"variants.original.accuracy: 1 does not"),
        (answers_right, r"variants.mixed_rand.accuracy: .* it was changed by hand, or written by another program"),
        (lambda c: c["class_names"].reverse(), r"per_class: expected '.*' as class_names has it for 0, got"),
        (lambda c: c["per_class"][1]["accuracy"]["original"].update(value=0.123), r"accuracy original of .*: 0.123"),
        (one_lost, r"per_class: expected \d+ images of class"),
    ],
)
def test_a_report_edited_by_hand_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        BackgroundBiasReport.from_dict(changed(change))


def test_what_was_written_is_read_and_so_is_the_gap_of_older_reports(tmp_path):
    report = make_report()
    assert BackgroundBiasReport.from_dict(report.to_dict()).bg_gap == report.bg_gap
    content = changed(lambda c: c.update(schema="torch_bgdebias.report/1"))
    for column in ("prediction", "confidence"):  # half of the images have lost one of their variants
        values = content["images"][column]["mixed_rand"]
        values[::2] = [-1 if column == "prediction" else None] * len(values[::2])
    label, said = content["images"]["label"], content["images"]["prediction"]
    means = {}
    for name in ("mixed_same", "mixed_rand"):
        right = [a == b for a, b in zip(said[name], label, strict=True) if a >= 0]
        means[name] = sum(right) / len(right)
    content["variants"]["mixed_rand"]["accuracy"]["value"] = means["mixed_rand"]
    content["bg_gap"]["value"] = means["mixed_same"] - means["mixed_rand"]
    content["per_class"] = []
    assert BackgroundBiasReport.from_dict(content).bg_gap.value == content["bg_gap"]["value"]
    content["bg_gap"]["value"] += 0.1
    with pytest.raises(ValueError, match="bg_gap"):
        BackgroundBiasReport.from_dict(content)
