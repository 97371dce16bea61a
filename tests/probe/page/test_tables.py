"""The page's tables."""

from __future__ import annotations

import re

import pytest
from probe_pages import NAMES, make_report

from torch_bgdebias.probe import compare_models
from torch_bgdebias.probe.page.render import section_html
from torch_bgdebias.probe.page.tables import classes_section
from torch_bgdebias.probe.results.spelling import number


def test_every_class_has_a_row_that_sorts_by_its_value() -> None:
    page = section_html(classes_section([make_report()]))
    rows = re.findall(r"<tbody>(.*)</tbody>", page)[0].split("</tr>")[:-1]
    assert len(rows) == len(NAMES)
    values = re.findall(r"data-value='([^']*)'", rows[0])
    report = make_report()
    leading = max(report.per_class, key=lambda c: abs(c.bg_gap.value))
    assert values[0] == leading.name != "airport"
    assert float(values[1]) == leading.n
    assert float(values[2]) == pytest.approx(leading.bg_gap.value, abs=1e-6)
    for row in report.per_class:  # intervals stand there, not only where a mouse rests
        assert f"<small>{number(row.bg_gap.low)} to {number(row.bg_gap.high)}</small>" in page


@pytest.mark.parametrize("count", [1, 2, 4])
def test_four_models_have_fewer_columns_each(count: int) -> None:
    reports = [make_report(f"m{i}", rand=0.4 + 0.1 * i, seed=i) for i in range(count)]
    page = section_html(classes_section(reports, compare_models(reports)))
    columns = len(re.findall(r"data-column=", page))
    assert columns == {1: 5, 2: 9, 4: 10}[count]
    assert page.count(">change ") == (0 if count < 3 else len(NAMES) * (count - 1))
    assert page.count("Change</button>") == (1 if count == 2 else 0)


def test_a_gap_that_may_be_chance_is_marked_and_pale() -> None:
    page = section_html(classes_section([make_report(same=0.5, rand=0.5, n=40)]))
    assert page.count("may be chance</small>") == len(NAMES)
    assert page.count("meter unsure") == len(NAMES)


def test_groups_have_anchors_that_no_name_can_spoil() -> None:
    report = make_report()
    report.per_group = {"<b> x": report.per_class, "site": report.per_class}
    assert [classes_section([report], grouping=name).anchor for name in report.per_group] == ["group-1", "group-2"]
