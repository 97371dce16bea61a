"""The demo's course: stages, the first result early, the time that it took."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from demo_folders import SMALL, write_objects, write_scenes

from torch_bgdebias import cli
from torch_bgdebias.cli.demo import running
from torch_bgdebias.cli.demo.results import README_SECONDS, demo_summary
from torch_bgdebias.names import DEMO_METHODS
from torch_bgdebias.probe import BackgroundBiasReport
from torch_bgdebias.writing import is_unfinished

ROOT = Path(__file__).resolve().parents[3]


def test_the_first_result_is_there_while_the_others_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    objects, scenes = write_objects(tmp_path / "o"), write_scenes(tmp_path / "s", {"a": 6, "b": 6, "c": 6})
    out, train, seen = tmp_path / "out", running.train, []

    def watched(name, *args, stage, **options):
        page = out / "report.html"
        seen.append((name, stage, page.is_file(), is_unfinished(out), sorted(p.name for p in out.glob("report-*"))))
        return train(name, *args, stage=stage, **options)

    monkeypatch.setattr(running, "train", watched)
    folders = ["--foregrounds", str(objects), "--backgrounds", str(scenes)]
    assert cli.main(["demo", "--out", str(out), *folders, "--methods", "baseline,swap,clad", *SMALL]) == 0
    first = ["report-baseline.json"]
    assert seen == [
        ("baseline", "1/3", False, True, []),
        ("swap", "2/3", True, True, first),
        ("clad", "3/3", True, True, [*first, "report-swap.json"]),
    ]
    assert not is_unfinished(out)
    messages = [str(warning.message) for warning in recwarn]
    assert not [message for message in messages if "categories have names" in message], "the demo's own bank fits"
    assert "CLAD" in (out / "report.html").read_text(encoding="utf-8")


def test_the_time_stands_beside_what_readme_says(small_reports: list[BackgroundBiasReport]) -> None:
    assert f"({README_SECONDS} s on two quiet cores" in (ROOT / "README.md").read_text(encoding="utf-8")
    default = cli.build_parser()[0].parse_args(["demo"])
    said = demo_summary(default, small_reports, {"html": "page.html"}, 77.4)
    assert f"77 s (README: {README_SECONDS} s). Open page.html" in said
    for other in (["--epochs", "1"], ["--foregrounds", "x"], ["--size", "64"]):
        args: argparse.Namespace = cli.build_parser()[0].parse_args(["demo", *other])
        assert "README" not in demo_summary(args, small_reports, {"html": "page.html"}, 77.4)


@pytest.fixture
def small_reports() -> list[BackgroundBiasReport]:
    from probe_pages import make_report

    return [make_report(name, n=40) for name in DEMO_METHODS]
