"""The Python of docs/backgrounds.md runs, top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backgrounds.md"


def test_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {"torch": torch}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(names["noise"]) == 8
    assert len(names["scenes"]) == 40
    assert 0 < len(names["clean"]) < 40
    assert capsys.readouterr().out.startswith("brightness (top 1) removed ")
    assert (names["images"].mean((1, 2, 3)) >= 0.5).all()
