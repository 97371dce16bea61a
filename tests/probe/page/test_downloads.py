"""Files inside the page: what they hold, and that a browser can save them."""

from __future__ import annotations

import base64
import csv
import io
import json
import re

import pytest
from probe_pages import NAMES, make_report

from torch_bgdebias.probe import compare_models
from torch_bgdebias.probe.page.downloads import classes_csv, downloads_section, figures_json
from torch_bgdebias.probe.page.render import section_html


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_has_every_class_of_every_model() -> None:
    reports = [make_report("before"), make_report("after", rand=0.8, seed=1)]
    rows = rows_of(classes_csv(reports))
    gaps = {(r["model"], r["part"]): r for r in rows if r["figure"] == "bg_gap"}
    assert len(gaps) == 2 * (len(NAMES) + 1)
    for report in reports:
        for row in report.per_class:
            line = gaps[report.model, row.name]
            assert line["grouped by"] == "class"
            assert int(line["images"]) == row.n
            for name, value in zip(("value", "low", "high"), (row.bg_gap.value, row.bg_gap.low, row.bg_gap.high),
                                   strict=True):  # fmt: skip
                assert float(line[name]) == pytest.approx(value, rel=1e-5)
            assert float(line["p corrected"]) == pytest.approx(row.gap_p, rel=1e-5)


def test_groups_are_in_it() -> None:
    report = make_report(n=8)
    report.per_group = {"site": report.per_class}
    assert {r["grouped by"] for r in rows_of(classes_csv([report]))} == {"", "class", "site"}


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1+2", "@SUM(1)", "\tx"])
def test_names_are_no_formulas_to_a_spreadsheet(name: str) -> None:
    report = make_report(n=8)
    report.model = name
    assert {r["model"] for r in rows_of(classes_csv([report]))} == {f"'{name}"}


def test_figures_are_strict_json_without_images() -> None:
    reports = [make_report("before", examples=1), make_report("after", rand=0.8, seed=1)]
    comparisons = compare_models(reports)
    data = json.loads(figures_json(reports, comparisons), parse_constant=pytest.fail)
    assert data["schema"] == "torch_bgdebias.figures/1"
    assert [m["bg_gap"]["value"] for m in data["models"]] == [r.bg_gap.value for r in reports]
    assert data["comparisons"][0]["figures"]["bg_gap"]["p_value"] == comparisons[0].figures["bg_gap"].p_value
    assert "images" not in data["models"][0]
    assert "examples" not in data["models"][0]
    assert json.loads(figures_json(reports, [None]))["comparisons"] == [None]


def test_the_page_holds_the_files() -> None:
    report = make_report(n=40)
    markup = section_html(downloads_section([report], []))
    links = dict(re.findall(r"download='([^']+)' href='data:[^,']*;base64,([^']+)'", markup))
    assert base64.b64decode(links["classes.csv"]).decode() == classes_csv([report])
    assert base64.b64decode(links["figures.json"]).decode() == figures_json([report], [])
