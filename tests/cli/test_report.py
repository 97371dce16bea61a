"""``bgdebias report``: from JSON files to a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from torch_bgdebias import cli
from torch_bgdebias.probe.report import summarise
from torch_bgdebias.probe.results.images import ImageResults


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    label = np.arange(60) % 3
    written = []
    for name, rand in (("before", (label + 1) % 3), ("after", label)):
        prediction = {"original": label, "mixed_same": label, "mixed_rand": rand}
        sure = {v: np.ones(60, np.float32) for v in prediction}
        images = ImageResults(np.arange(60, dtype=np.uint64), label, prediction, sure)
        path = tmp_path / f"{name}.json"
        summarise(images, model=name, class_names=list("abc")).to_json(path)
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
    assert "after against before: 60 common images" in printed
    assert "BG-Gap changed in 3 of 3 classes" in printed
    assert str(out) in printed


def test_json(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", *files, "--out", str(tmp_path / "p.html"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == "torch_bgdebias.headlines/2"
    (comparison,) = result["comparisons"]
    assert comparison["figures"]["bg_gap"]["difference"]["value"] == -1.0
    assert comparison["per_class"][0]["changes"]["bg_gap"]["corrected"] < 0.05
    assert [m["bg_gap"]["value"] for m in result["models"]] == [1.0, 0.0]
    assert result["models"][0]["accuracy"]["mixed_rand"]["value"] == 0.0


def test_errors_are_one_line(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(Path(files[0]).read_text())
    expected = "expected a report's JSON file, as BackgroundBiasReport.to_json and bgdebias probe write it"
    contents = {
        "other": ('{"schema": "something else"}', "schema: expected 'torch_bgdebias.report/4', got 'something else'"),
        "newer": (
            '{"schema": "torch_bgdebias.report/9"}',
            "schema: expected 'torch_bgdebias.report/4', got 'torch_bgdebias.report/9': written by a newer",
        ),
        "broken": ("{", f"{expected}; it is not JSON: "),
        "list": ("[1]", "schema: expected 'torch_bgdebias.report/4', got None"),
        "no-images": (json.dumps({**whole, "images": {}}), "report: a field is missing: "),
        "kind": (json.dumps({**whole, "variants": [1]}), "report: a field is not of the kind that to_json writes"),
        "cut": (
            json.dumps({**whole, "images": {**whole["images"], "label": [0, 1]}}),
            "images.label: expected 60 values, one an image, got (2,)",
        ),
    }
    for name, (text, _) in contents.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff")
    for argv, message in (
        *(([str(tmp_path / f"{name}.json")], f"{name}.json: {problem}") for name, (_, problem) in contents.items()),
        ([str(tmp_path / "picture.json")], f"picture.json: {expected}; it is not text"),
        ([str(tmp_path / "absent.json")], "FILE: expected a file or folder, found nothing at"),
        ([str(tmp_path)], f"{expected}; is a directory"),
        ([files[0], "--out", str(tmp_path / "no" / "where.html")], "--out: expected a file to write"),
        ([files[0], "--out", str(tmp_path)], "it is a folder"),
    ):
        assert cli.main(["report", *argv, "--json"]) == 1
        out, err = capsys.readouterr()
        assert message in err
        assert err.count("\n") == 1
        assert out == ""
    assert cli.main(["report"]) == 2


def test_errors_of_the_system_name_the_file() -> None:
    assert cli.one_line(PermissionError(13, "Permission denied", "x/y.png")) == "x/y.png: permission denied"
    assert cli.one_line(OSError("--out: cannot write")) == "--out: cannot write"
