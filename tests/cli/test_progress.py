"""Progress on a terminal and off it."""

from __future__ import annotations

import sys

import pytest

from torch_bgdebias.cli import progress as module
from torch_bgdebias.cli.progress import note, progress, seconds_words


def seconds_pass(monkeypatch: pytest.MonkeyPatch, each: float) -> None:
    """Every look at the clock is so many seconds later."""
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: each * next(clock))


def test_what_is_done_soon_says_nothing_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), total=3, label="x")) == [0, 1, 2]
    note("hidden")
    assert capsys.readouterr().err == ""


def test_a_pipe_gets_a_line_every_ten_seconds_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds_pass(monkeypatch, 4.0)
    assert list(progress(range(9), total=9, label="reading")) == list(range(9))
    # every item takes 4 s: lines after 12, 24 and 36 s
    assert capsys.readouterr().err.splitlines() == [
        "reading: 3/9, 24 s left",
        "reading: 6/9, 12 s left",
        "reading: 9/9",
    ]


def test_a_terminal_without_tqdm_gets_lines_sooner(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    seconds_pass(monkeypatch, 2.5)
    assert list(progress(range(2), total=2, label="reading")) == [0, 1]
    note("shown")
    assert capsys.readouterr().err == "reading: 1/2, 2 s left\nreading: 2/2\nshown\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_time_is_said_as_people_say_it(seconds: float, words: str) -> None:
    assert seconds_words(seconds) == words
