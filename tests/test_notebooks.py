"""The notebooks run as they stand, keep what they print, and are pages of the site."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
sys.path.insert(0, str(ROOT / "site"))
import notebooks  # noqa: E402 - the site's own script


def cell(source: str, kind: str = "code") -> dict[str, object]:
    return {"cell_type": kind, "source": source.splitlines(keepends=True), "outputs": []}


def test_there_are_five() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"audit", "concepts", "measure", "radiographs", "repair"}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    """In a process of its own; what a cell asserts is the oracle."""
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    words = [sys.executable, "-W", "ignore", ROOT / "site" / "notebooks.py", copy]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_was_run_in_order_and_says_what_holds(path: Path) -> None:
    cells = [c for c in notebooks.read(path)["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    assert any(c["outputs"] for c in cells)
    assert any("assert " in "".join(c["source"]) for c in cells)
    assert path.stat().st_size < 200_000
    assert not re.search(r"/(work|root|home|tmp)/", path.read_text(encoding="utf-8"))


def test_outputs_are_what_a_cell_prints_returns_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    sources = ["x = 3\nprint('x is', x)\nx + 1", "import matplotlib.pyplot as plt\n_ = plt.plot([0, x])", "x = 5", "x"]
    result = notebooks.executed({"cells": [cell("# Title", "markdown"), *map(cell, sources)]})
    printed, returned = result["cells"][1]["outputs"]
    assert printed["text"] == ["x is 3\n"]
    assert returned["data"]["text/plain"] == ["4"]
    (drawn,) = result["cells"][2]["outputs"]
    assert base64.b64decode(drawn["data"]["image/png"]).startswith(b"\x89PNG")
    assert result["cells"][3]["outputs"] == []
    assert result["cells"][4]["outputs"][0]["data"]["text/plain"] == ["5"]
    text = notebooks.page(result, "trial", tmp_path)
    assert text.startswith("# Title\n\n```python\nx = 3")
    assert "```text\nx is 3\n```" in text
    assert "![What the cell above draws](trial-1.png)" in text
    assert (tmp_path / "trial-1.png").is_file()
    json.dumps(result)


def test_a_cell_that_fails_is_named() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        notebooks.executed({"cells": [cell("y = 1"), cell("y / 0")]})
    assert "in cell 2:\ny / 0" in caught.value.__notes__[0]
