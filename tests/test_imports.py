"""The import rule, read from the sources, and what importing the package costs, seen in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "torch_bgdebias"
FILES = sorted(PACKAGE.rglob("*.py"))

#: which rooms a room may import, besides itself; the ground floor is open to all
GROUND = {
    "ops",
    "compositing",
    "models",
    "batch",
    "checks",
    "precision",
    "files",
    "writing",
    "names",
    "_optional",
    "_deprecated",
    "_lazy",
    "_version",
}
MAY_IMPORT = {
    "names": set(),
    "_version": set(),
    "_deprecated": set(),
    "_lazy": {"_deprecated"},
    "checks": {"_deprecated"},
    "precision": set(),
    "_optional": set(),
    "batch": {"checks", "_deprecated"},
    "models": {"checks", "_deprecated"},
    "files": {"checks", "names", "_deprecated"},
    "writing": set(),
    "ops": {"checks"},
    "compositing": {"checks", "ops"},
    "named_models": GROUND,
    "lightning": GROUND,
    "lrp": GROUND,
    "clad": GROUND,
    "metrics": GROUND,
    "concepts": GROUND,
    "masks": GROUND,
    "data": GROUND | {"masks"},
    "backgrounds": GROUND,
    "swap": GROUND | {"backgrounds"},
    "attribution": GROUND | {"lrp"},
    "isnet": GROUND | {"lrp"},
    "probe": GROUND | {"backgrounds", "swap", "clad", "isnet", "concepts", "attribution", "metrics", "data"},
    "train": GROUND | {"data", "named_models"},
    "callbacks": GROUND,
}
MAY_IMPORT["cli"] = set(MAY_IMPORT) - {"callbacks"}
#: the training callbacks of these rooms meet the augmentation, and nothing else of another room
CALLBACK_EXTRA = {"clad": {"swap", "backgrounds"}, "isnet": {"swap"}}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module, absolute, and whether the import is for type checkers only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = ("torch_bgdebias", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem, id(node) in typing_only
            if stem == "torch_bgdebias":
                for alias in node.names:
                    yield f"{stem}.{alias.name}", id(node) in typing_only


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    room = room_of(path)
    if room == "__init__":
        return
    allowed = MAY_IMPORT[room] | {room}
    if path.name.startswith("callback"):
        allowed = allowed | {"lightning"} | CALLBACK_EXTRA.get(room, set())
    for module, typing_only in imports(path):
        if typing_only or not module.startswith("torch_bgdebias."):
            continue
        target = module.split(".")[1]
        assert target in allowed, f"{room} must not import {target}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_partners_stay_in_their_rooms(path):
    room, relative = room_of(path), str(path.relative_to(PACKAGE))
    partners = {
        "zennit": room == "lrp",
        "pytorch_lightning": room == "cli"
        or relative in {"lightning/packages.py", "train.py"}
        or path.name.startswith("callback"),
        "lightning": room == "cli" or relative == "lightning/packages.py",
        "kornia": room in {"swap", "data", "backgrounds"},
        "torchmetrics": room in {"metrics", "probe"},
        "cv2": False,  # only through _optional.require
        "captum": False,
        "diffusers": False,
        "matplotlib": False,
        "sklearn": False,
    }
    for module, typing_only in imports(path):
        top = module.split(".")[0]
        if not typing_only and top in partners:
            assert partners[top], f"{relative} must not import {top}"


def test_every_room_is_in_the_table():
    assert {room_of(path) for path in FILES} - {"__init__"} <= set(MAY_IMPORT)


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_is_silent_and_lean():
    out = run("""
        import sys, warnings
        warnings.simplefilter("error")
        import torch
        before = set(sys.modules)
        import torch_bgdebias
        heavy = {"pytorch_lightning", "kornia", "zennit", "torchvision", "timm", "torchmetrics", "scipy", "matplotlib"}
        woken = heavy & {name.split(".")[0] for name in set(sys.modules) - before}
        assert not woken, woken
        assert not torch.cuda.is_initialized()
        print("silent")
    """)
    assert out == "silent\n"


@pytest.mark.parametrize("room", ["clad", "metrics", "data", "swap", "isnet", "lrp", "ops", "probe", "callbacks"])
def test_rooms_do_not_wake_the_trainer_or_the_gpu(room):
    run(f"""
        import sys, torch, importlib
        importlib.import_module("torch_bgdebias.{room}")
        assert "pytorch_lightning" not in sys.modules
        assert not torch.cuda.is_initialized()
    """)
