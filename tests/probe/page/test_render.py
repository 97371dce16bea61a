"""Templates escape what they print: none of them switches that off, and every one of them is used."""

from __future__ import annotations

import re
from pathlib import Path

import torch_bgdebias.probe.page as page
from torch_bgdebias.probe.page.render import FOOTNOTES

ROOM = Path(page.__file__).parent
TEMPLATES = {path.name: path.read_text(encoding="utf-8") for path in (ROOM / "templates").iterdir()}


def test_nothing_is_marked_as_safe() -> None:
    for name, text in TEMPLATES.items():
        assert not re.search(r"\|\s*safe|autoescape|Markup", text), name
    for path in ROOM.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "Markup" not in text, path.name
        assert "autoescape=False" not in text, path.name
        assert not re.search(r"[\"']</?[a-z]+[ >]", text), f"{path.name}: markup belongs into a template"


def test_every_template_is_used() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in ROOM.glob("*.py")) + "".join(TEMPLATES.values())
    assert [name for name in TEMPLATES if f'"{name}"' not in sources] == []


def test_footnotes_are_referred_to_by_name() -> None:
    text = TEMPLATES["footnotes.html"]
    for name in FOOTNOTES:
        assert f"{{% macro {name}() %}}" in text
    used = set(re.findall(r'note\("(\w+)"\)', "".join(TEMPLATES.values())))
    assert used <= set(FOOTNOTES)
