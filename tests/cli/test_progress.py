"""Progress on a terminal and off it."""

from __future__ import annotations

import pytest


def test_progress_is_quiet_off_a_terminal_and_plain_without_tqdm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from torch_bgdebias.cli.progress import note, progress

    assert list(progress(range(3), total=3, label="x")) == [0, 1, 2]
    note("hidden")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert list(progress(range(3), total=3, label="reading")) == [0, 1, 2]
    note("shown")
    assert capsys.readouterr().err == "reading: 3/3\nshown\n"
