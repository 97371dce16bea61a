"""The site's sources: every public name has its place, every page is in the navigation."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "source"
    subprocess.run([sys.executable, ROOT / "site" / "assemble.py", out], check=True, timeout=100)
    return out


def rooms(source: Path) -> list[str]:
    return sorted(path.stem for path in (source / "api").glob("*.md") if path.stem != "index")


def test_every_public_name_is_documented(source):
    for room in rooms(source):
        page = (source / "api" / f"{room}.md").read_text()
        public = importlib.import_module(f"torch_bgdebias.{room}").__all__
        titles = re.findall(r"^## (\w+)$", page, flags=re.MULTILINE)
        assert sorted(titles) == sorted(name for name in public if not is_room(room, name)), room


def is_room(room: str, name: str) -> bool:
    return (ROOT / "torch_bgdebias" / room / name / "__init__.py").exists()


def test_every_face_has_a_page(source):
    package = ROOT / "torch_bgdebias"
    faces = {path.parent.name for path in package.glob("*/__init__.py") if "lazy(" in path.read_text()}
    assert faces - {"cli", "lightning"} <= set(rooms(source))


def test_what_is_documented_exists(source):
    for room in rooms(source):
        for full_name in re.findall(r"^::: ([\w.]+)$", (source / "api" / f"{room}.md").read_text(), flags=re.MULTILINE):
            module, _, name = full_name.rpartition(".")
            assert hasattr(importlib.import_module(module), name), full_name


def test_every_page_is_in_the_navigation(source):
    pages = {path.relative_to(source).as_posix() for path in source.rglob("*.md")}
    assert pages == set(re.findall(r"([\w./-]+\.md)$", CONFIGURATION, flags=re.MULTILINE))


def test_links_within_the_site_stay_within_it(source):
    for page in source.rglob("*.md"):
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
            if not target.startswith(("http", "mailto")):
                assert (page.parent / target).resolve().is_relative_to(source.resolve())
                assert (page.parent / target).exists(), f"{page.relative_to(source)}: {target}"
