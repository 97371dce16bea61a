"""``bgdebias report``: from JSON files to a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from torch_bgdebias import cli
from torch_bgdebias.probe.aggregate import summarise
from torch_bgdebias.probe.results import ImageResults


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    label = np.arange(60) % 3
    written = []
    for name, rand in (("before", (label + 1) % 3), ("after", label)):
        prediction = {"original": label, "mixed_same": label, "mixed_rand": rand}
        sure = {v: np.ones(60, np.float32) for v in prediction}
        images = ImageResults(np.arange(60, dtype=np.uint64), label, prediction, sure)
        path = tmp_path / f"{name}.json"
        summarise(images, model=name, class_names=list("abc"), n_resamples=20).to_json(path)
        written.append(str(path))
    return written


def test_page_and_summary(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert cli.main(["report", *files, "--out", str(out), "--title", "Ships & planes"]) == 0
    page = out.read_text(encoding="utf-8")
    assert "<title>Ships &amp; planes</title>" in page
    assert "loses <b>100.0 points</b>" in page
    assert "none of it is left" in page
    printed = capsys.readouterr().out
    assert "before: background bias" in printed
    assert str(out) in printed


def test_json(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", *files, "--out", str(tmp_path / "p.html"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == "torch_bgdebias.headlines/1"
    assert [m["bg_gap"]["value"] for m in result["models"]] == [1.0, 0.0]
    assert result["models"][0]["accuracy"]["mixed_rand"]["value"] == 0.0


def test_errors_are_one_line(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text('{"schema": "something else"}')
    (tmp_path / "broken.json").write_text("{")
    for argv, told in (
        ([str(tmp_path / "absent.json")], "absent.json"),
        ([str(tmp_path / "other.json")], "schema: expected 'torch_bgdebias.report/3', got 'something else'"),
        ([str(tmp_path / "broken.json")], "broken.json"),
        ([files[0], "--out", str(tmp_path / "no" / "where.html")], "where.html"),
    ):
        assert cli.main(["report", *argv]) == 1
        err = capsys.readouterr().err
        assert told in err
        assert err.count("\n") == 1
    assert cli.main(["report"]) == 2
