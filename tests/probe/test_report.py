"""From a model and a loader to metric, report, page and comparison: one model that cheats, and one that does not."""

from __future__ import annotations

from pathlib import Path

import torch
from probe_pages import make_report
from probe_toy import K, ToyImages, cheat, honest
from torch.utils.data import DataLoader

from torch_bgdebias.data import make_variant
from torch_bgdebias.metrics import BackgroundGap
from torch_bgdebias.probe import compare_models, evaluate_background_bias
from torch_bgdebias.probe.report import report_html


def test_metric_report_page_and_comparison(tmp_path) -> None:
    loader = DataLoader(ToyImages(40), batch_size=40)
    image, label, mask = next(iter(loader))
    model = cheat().eval()
    same, rand = (make_variant(image, mask, label, name) for name in ("mixed_same", "mixed_rand"))
    gap = BackgroundGap(num_classes=K, average="macro")
    with torch.no_grad():
        gap.update(model(same.image), model(rand.image), label, valid_same=same.valid, valid_rand=rand.valid)
    assert gap.compute() > 0.3

    reports = [evaluate_background_bias(m, loader, mean=[0.0] * 3, std=[1.0] * 3) for m in (model, honest())]
    reports[0].to_json(tmp_path / "report.json")
    reports[0].to_html(tmp_path / "report.html")
    assert (tmp_path / "report.json").exists()
    assert "its answer off the background (on random ones it is right" in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )
    (comparison,) = compare_models(reports)
    assert comparison.figures["bg_gap"].corrected < 0.001
    assert "BG-Gap changed in" in comparison.summary()


def test_to_html_of_a_report_writes_the_same_page(tmp_path: Path) -> None:
    report = make_report(n=40)
    report.to_html(tmp_path / "a.html", title="T")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == report_html([report], title="T")
