"""Reports as JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from probe_toy import cheat, toy_loader

from torch_bgdebias.probe import BackgroundBiasReport, evaluate_background_bias
from torch_bgdebias.probe.report import report_html, summarise

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def test_report_survives_json_and_can_be_recomputed(tmp_path) -> None:
    scores = {"brightness": lambda model, image, mask, label: image.mean((1, 2, 3)).where(label > 0, torch.nan)}
    report = evaluate_background_bias(cheat(), toy_loader(), scores=scores, examples=3, max_batches=5)
    assert len(report.images) == 35
    path = tmp_path / "report.json"
    report.to_json(path)
    again = BackgroundBiasReport.from_json(path)
    assert again.to_dict() == report.to_dict()
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    for column in ("id", "label", "position"):
        mine, theirs = getattr(report.images, column), getattr(again.images, column)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(again.images.cosine["mixed_rand"], report.images.cosine["mixed_rand"])
    recomputed = summarise(again.images, model=again.model, class_names=again.class_names, counts=again.counts)
    assert recomputed.to_dict()["variants"] == report.to_dict()["variants"]
    assert recomputed.to_dict()["per_class"] == report.to_dict()["per_class"]
    assert report.scores["brightness"].n_undefined == 9
    assert report.scores["brightness"].mean.n == 26
    wider = summarise(again.images, model="m", class_names=again.class_names, confidence=0.999)
    assert wider.bg_gap.high - wider.bg_gap.low > report.bg_gap.high - report.bg_gap.low
    assert "99.9 % intervals" in wider.summary()


def test_reports_of_the_first_layout_are_read() -> None:
    data = evaluate_background_bias(cheat(), toy_loader(), variants=MIXED, examples=2).to_dict()
    data["schema"] = "torch_bgdebias.report/1"
    for example in data["examples"]:
        del example["heatmaps"], example["mask"]
    del data["concepts"]
    old = BackgroundBiasReport.from_dict(data)
    assert old.examples[0].heatmaps == {}
    assert old.examples[0].mask is None
    assert "Worst images" in report_html([old])


def test_foreign_json(tmp_path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"schema": "torch_bgdebias.report/9"}')
    with pytest.raises(
        ValueError, match=r"r.json: schema: expected 'torch_bgdebias.report/4', got .*': written by a n"
    ):
        BackgroundBiasReport.from_json(path)
    for other in ("torch_bgdebias.audit/9", "torch_bgdebias.report/x", "torch_bgdebias.report/0"):
        path.write_text(json.dumps({"schema": other}))
        with pytest.raises(ValueError, match=rf"got '{other}'$"):
            BackgroundBiasReport.from_json(path)
    path.write_text('{"schema": "torch_bgdebias.report/1", "model": "x", "colour": 1}')
    with pytest.raises(ValueError, match=r"missing fields \['bg_gap'.*unknown fields \['colour'\]"):
        BackgroundBiasReport.from_json(path)
    path.write_text("not json")
    with pytest.raises(ValueError, match="r.json: expected a report.s JSON file.*it is not JSON: Expecting value"):
        BackgroundBiasReport.from_json(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data["images"]["confidence"].pop("mixed_rand"),
            "mixed_rand has log odds, and no pred",
        ),
        (
            lambda data: data["images"]["prediction"].pop("mixed_rand"),
            "mixed_rand has log odds, and no pred",
        ),
        (
            lambda data: data["images"]["prediction"]["original"].__setitem__(0, 9),
            "log_odds: class 9 is given, and",
        ),
        (lambda data: data["images"]["label"].__setitem__(0, 9), "log_odds: class 9 is given, and there are"),
        (lambda data: data["worst_class"].update(variant="/"), r"worst_class\.variant: expected original, .*, got '/'"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_read(change, message) -> None:
    data = json.loads(json.dumps(evaluate_background_bias(cheat(), toy_loader(), variants=MIXED).to_dict()))
    assert BackgroundBiasReport.from_dict(data).summary()
    change(data)
    with pytest.raises(ValueError, match=message):
        BackgroundBiasReport.from_dict(data)
