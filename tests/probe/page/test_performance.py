"""The section on AUC and calibration says the report's numbers."""

from __future__ import annotations

import re

import pytest
from probe_pages import parse
from probe_targets import SetReader, label_sets, set_loader
from probe_toy import cheat, honest, toy_loader

from torch_bgdebias.probe import compare_models, evaluate_background_bias
from torch_bgdebias.probe.page.performance import performance_section
from torch_bgdebias.probe.page.render import section_html
from torch_bgdebias.probe.report import report_html

HOSTILE = "<img src=x onerror=hacked()>"


def test_rows_say_the_reports_numbers() -> None:
    names = ["cat", "dog", HOSTILE, "cow & calf"]
    report = evaluate_background_bias(cheat(), toy_loader(60), class_names=names, name="one")
    markup = section_html(performance_section([report], []))
    row = report.performance["mixed_rand"]
    cells = re.search(r"<th scope='row'>Random backgrounds</th>(.*?)</tr>", markup)[1]
    for estimate in (row.auc, row.balanced_accuracy, row.f1):
        assert f"<td>{estimate.value:.3f}<small>{estimate.low:.3f} to {estimate.high:.3f}</small>" in cells
    assert f"<td>{row.calibration_error:.3f}<small>{row.calibration_by_chance:.3f} by chance</small>" in cells
    first = re.search(r"Class by class, as given.*?<tbody>(.*?)</tbody>", markup, re.S)[1]
    assert first.count("<tr>") == 4
    assert HOSTILE not in markup
    assert "cow &amp; calf" in markup
    matrix = re.search(r"<h3>random backgrounds</h3>.*?<tbody>(.*?)</tbody>", markup, re.S)[1]
    counts = [int(x) for x in re.findall(r">(\d+)</td>", matrix)]
    assert counts == [count for line in row.confusion for count in line]
    assert "DeLong&#39;s paired test" in markup


def test_changes_stand_beside_the_areas() -> None:
    reports = [
        evaluate_background_bias(model, toy_loader(60), name=name) for model, name in ((cheat(), "a"), (honest(), "b"))
    ]
    compared = compare_models(reports)
    markup = section_html(performance_section(reports, compared))
    change = compared[0].figures["auc/mixed_rand"]
    assert f"+{change.difference.value:.3f} against a, p &lt; 0.001" in markup
    assert "<h3>a</h3>" in markup


@pytest.mark.parametrize("probabilities", [True, False])
def test_the_page_has_the_section_where_there_are_log_odds(probabilities: bool) -> None:
    report = evaluate_background_bias(cheat(), toy_loader(), probabilities=probabilities)
    page = report_html([report])
    parse(page)
    assert ("AUC, sensitivity, calibration" in page) is probabilities


def test_label_sets_have_rows_and_no_matrix() -> None:
    report = evaluate_background_bias(SetReader(corner=True), set_loader(label_sets(60)), task="multilabel")
    page = report_html([report])
    parse(page)
    assert "Label by label, as given" in page
    assert "Confusion matrices" not in page
