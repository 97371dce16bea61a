"""``bgdebias demo``: a whole small run, its files, its data, its errors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_folders import SMALL, error_of, write_objects, write_scenes

from torch_bgdebias import cli
from torch_bgdebias.cli.demo import data as _demo_data, running, training
from torch_bgdebias.cli.demo.results import SCHEMA
from torch_bgdebias.cli.demo.running import CURVES
from torch_bgdebias.names import DEMO_METHODS
from torch_bgdebias.probe import BackgroundBiasReport


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("demo")
    assert cli.main(["demo", "--out", str(out), "--methods", "baseline,swap,clad,clad+", *SMALL]) == 0
    return out, json.loads((out / "demo.json").read_text(encoding="utf-8"))


def test_files(small_run: tuple[Path, dict[str, Any]]) -> None:
    out, result = small_run
    names = {"report.html", "demo.json", *(f"report-{m}.json" for m in DEMO_METHODS)}
    assert {p.name for p in out.iterdir()} == names
    assert {Path(p).name for p in result["files"].values()} == names
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("Class by class", "The same objects in front of other scenes", "During training", "CLAD+"):
        assert text in page
    assert page.count("data:image/png;base64,") >= 30


def test_result_is_versioned_and_agrees_with_the_reports(small_run: tuple[Path, dict[str, Any]]) -> None:
    out, result = small_run
    assert result["schema"] == SCHEMA == "torch_bgdebias.demo/1"
    assert set(result) == {"schema", "arguments", "data", "methods", "files", "seconds"}
    assert [m["name"] for m in result["methods"]] == list(DEMO_METHODS)
    assert result["arguments"]["samples"] == 96
    for method in result["methods"]:
        report = BackgroundBiasReport.from_json(out / f"report-{method['name']}.json")
        assert method["label"] == report.model
        assert report.bg_gap is not None
        assert method["bg_gap"]["value"] == pytest.approx(report.bg_gap.value)
        assert method["variants"]["mixed_rand"]["accuracy"]["n"] == len(report.images)
        assert {len(v) for v in method["curves"].values()} == {1}
        assert set(method["curves"]) == {"loss", *CURVES}


def test_training_and_test_share_no_object_and_no_scene(small_run: tuple[Path, dict[str, Any]]) -> None:
    counts = small_run[1]["data"]["counts"]
    assert counts["test_scenes"] == 240
    assert counts["training_scenes"] == 960
    labels = torch.arange(3).repeat_interleave(10)
    learn, test = _demo_data.split(labels, 0.2, torch.Generator().manual_seed(0), what="x", names="abc")
    assert sorted([*learn.tolist(), *test.tolist()]) == list(range(30))
    assert torch.bincount(labels[test]).tolist() == [2, 2, 2]


def test_the_same_seed_gives_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 6, "b": 6, "c": 6})
    folders = ["--foregrounds", str(objects), "--backgrounds", str(scenes)]
    results = []
    for turn, seed in enumerate(("0", "0", "1")):
        torch.manual_seed(turn)  # the global generator must not matter
        argv = ["--out", str(tmp_path / f"{turn}"), *folders, "--json", "--seed", seed]
        assert cli.main(["demo", *argv, "--samples", "64", "--epochs", "2", "--size", "16"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    first, again, other = ([(m["curves"], m["bg_gap"], m["per_class"]) for m in r["methods"]] for r in results)
    assert first == again
    assert first != other


def test_json_goes_to_stdout_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 6, "b": 6, "c": 6})
    argv = ["--foregrounds", str(objects), "--backgrounds", str(scenes), "--methods", "swap", "--json"]
    assert cli.main(["demo", "--out", str(tmp_path / "out"), *argv, *SMALL]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "out" / "demo.json").read_text(encoding="utf-8"))
    assert captured.err == ""


def test_out_that_cannot_be_written_is_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "load", lambda *_, **__: pytest.fail("data were read first"))
    (tmp_path / "file").write_text("x")
    assert "--out: expected a folder, got the file" in error_of(["--out", str(tmp_path / "file")], capsys)
    assert "--out: cannot write into" in error_of(["--out", str(tmp_path / "file" / "below")], capsys)
    if os.geteuid() != 0:  # root writes anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "--out: cannot write into" in error_of(["--out", str(tmp_path / "locked")], capsys)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--correlation", "1.5"], "expected a number in [0, 1], got 1.5"),
        (["--clad-weight", "-1"], "expected a number of at least 0, got -1"),
        (["--clad-weight", "x"], "expected a number of at least 0, got x"),
        (["--clad-weight", "inf"], "expected a number of at least 0, got inf"),
        (["--correlation", "nan"], "expected a number in [0, 1], got nan"),
        (["--size", "8"], "expected a whole number of at least 16, got 8"),
        (["--epochs", "0"], "expected a whole number of at least 1, got 0"),
        (["--epochs", "1.5"], "expected a whole number of at least 1, got 1.5"),
        (["--seed", "-1"], "expected a whole number of at least 0, got -1"),
        (["--methods", "swap,magic"], "expected some of baseline, swap, clad, clad+, got 'swap,magic'"),
        (["--methods", ""], "expected some of baseline"),
    ],
)
def test_arguments_out_of_range(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert text in error_of(argv, capsys, code=2)


def test_help_names_every_method() -> None:
    assert list(DEMO_METHODS) == list(training.METHODS)
