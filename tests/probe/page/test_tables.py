"""The page's tables."""

from __future__ import annotations

import re

import pytest
from probe_pages import NAMES, make_report

from torch_bgdebias.probe.page.render import section_html
from torch_bgdebias.probe.page.tables import classes_section


def test_every_class_has_a_row_that_sorts_by_its_value() -> None:
    page = section_html(classes_section([make_report()]))
    rows = re.findall(r"<tbody>(.*)</tbody>", page)[0].split("</tr>")[:-1]
    assert len(rows) == len(NAMES)
    values = re.findall(r"data-value='([^']*)'", rows[0])
    report = make_report()
    leading = max(report.per_class, key=lambda c: abs(c.bg_gap.value))
    assert values[0] == leading.name != "airport"
    assert float(values[1]) == leading.n
    assert float(values[-1]) == pytest.approx(leading.bg_gap.value, abs=1e-6)
