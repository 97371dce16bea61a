"""The lines that experiments have kept: each says how it came about, and the tables are made of them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "experiments"
#: by folder, what a line is called in the table that is made of it
TABLES = {
    "clad": lambda run, lines: run.tables(lines),
    "concepts": lambda run, lines: run.tables(lines),
    "sav": lambda run, lines: run.show(lines),
}


def lines_of(topic: str) -> list[dict]:
    path = ROOT / topic / "results.jsonl"
    if not path.exists():
        pytest.skip(f"no line has been kept of experiments/{topic}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("topic", [*TABLES, "isnet"])
def test_lines_say_how_they_came_about(topic):
    for line in lines_of(topic):
        assert "seed" in line["settings"]
        assert line["versions"].keys() >= {"torch", "numpy", "torch_bgdebias"}
        assert line["machine"]["processor"]
        assert line["machine"]["commit"]
        assert len(line["date"]) == len("2026-11-28")


@pytest.mark.parametrize("topic", TABLES)
def test_every_line_is_in_a_table(topic):
    lines = lines_of(topic)
    text = TABLES[topic](importlib.import_module(f"experiments.{topic}.run"), lines)
    assert text.count("\n| --- |") + text.count("\n| --- ") >= 1
    for line in lines:
        assert line["machine"]["processor"] in text
    if topic == "clad":
        assert all(f"| {line['mixed_rand']:.1f} " in text for line in lines if [*map(key, lines)].count(key(line)) == 1)


def key(line: dict) -> dict:
    """What makes a row of a table: all settings but the seed."""
    return {name: value for name, value in line["settings"].items() if name != "seed"}


def test_isnets_table(capsys):
    lines = lines_of("isnet")
    run = importlib.import_module("experiments.isnet.run")
    run.table(run.arguments(["table"]))
    printed = capsys.readouterr().out
    for line in lines:
        if [*map(key, lines)].count(key(line)) == 1:
            assert all(f"| {value:.1f} " in printed for value in line["accuracy"].values())
