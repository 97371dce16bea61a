"""The page in a browser: pictures load, headings sort, hostile names run nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from probe_pages import NAMES, make_page, make_report

PROBE = """
const images = [...document.images];
const table = document.querySelector("table.sortable");
const order = () => [...table.tBodies[0].rows].map((r) => r.cells[0].dataset.value);
const click = (column) => { table.querySelector(`th[data-column="${column}"] button`).click(); return order(); };
const seen = {
  pictures: images.length, loaded: images.filter((i) => i.complete && i.naturalWidth > 0).length,
  start: order(), gap_down: click(4), gap_up: click(4), name_up: click(0), name_down: click(0),
  sorted: [...table.querySelectorAll("th[data-column]")].map((h) => h.getAttribute("aria-sort")),
  fetched: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
};
document.documentElement.dataset.seen = JSON.stringify(seen);
"""


def chromium() -> str:
    found = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if found is None:
        if os.environ.get("TORCH_BGDEBIAS_BROWSER") == "required":
            pytest.fail("TORCH_BGDEBIAS_BROWSER is required, and there is no Chromium")
        pytest.skip("no Chromium on this machine: the report was not opened in a browser")
    return found


@pytest.mark.parametrize("width", [1200, 500])
def test_in_a_browser_pictures_load_and_headings_sort(tmp_path: Path, width: int) -> None:
    page = make_page().replace("</body>", f"<script>addEventListener('load', () => {{{PROBE}}})</script></body>")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync"
    done = subprocess.run(
        [
            chromium(),
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900",
            "--virtual-time-budget=2000",
            "--dump-dom",
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, f"the page's script did not run: {done.stderr[-500:]}"
    seen = json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    gaps = {c.name: c.bg_gap.value for c in make_report().per_class}
    assert seen["pictures"] == seen["loaded"] == 2 * 3 + 1
    assert seen["start"] == NAMES
    assert seen["gap_down"] == sorted(NAMES, key=lambda n: -gaps[n])
    assert seen["gap_up"] == sorted(NAMES, key=lambda n: gaps[n])
    assert seen["name_up"] == seen["name_down"][::-1]
    assert seen["name_up"][-1] == "desert & co"
    assert seen["sorted"] == ["descending"] + ["none"] * 8
    assert seen["fetched"] == []
    assert seen["overflow"] <= 0
