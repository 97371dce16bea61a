"""Colour where it is a terminal, none elsewhere."""

from __future__ import annotations

import io

import pytest

from torch_bgdebias.cli.colours import coloured, has_colour, tell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal, {}, True),
        (io.StringIO, {}, False),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"NO_COLOR": ""}, True),  # as no-color.org has it
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (Terminal, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_who_gets_colour(stream, environment, expected, monkeypatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert has_colour(stream()) is expected
    assert ("\033[" in coloured("x", "error", stream())) is expected


def test_text_is_the_same_but_for_colour() -> None:
    text = "model: bias\n  gap 3 (may be chance)\n\nOpen page.html"
    screen, pipe = Terminal(), io.StringIO()
    tell(text, screen)
    tell(text, pipe)
    assert pipe.getvalue() == f"{text}\n"
    assert screen.getvalue().startswith("\033[1mmodel: bias\033[0m\n")
    for code in ("\033[1m", "\033[2m", "\033[0m"):
        assert code in screen.getvalue()
        screen = Terminal(screen.getvalue().replace(code, ""))
    assert screen.getvalue() == f"{text}\n"
