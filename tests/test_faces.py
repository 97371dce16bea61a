"""The faces of the rooms: what the interpreter finds is what type checkers and editors are told."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "torch_bgdebias"


def face_block(path: Path) -> ast.If | None:
    """``if TYPE_CHECKING: ... else: ... = lazy(...)`` of a file, ``None`` where it has none."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If) and "lazy(" in "".join(map(ast.unparse, node.orelse)):
            return node
    return None


FACES = {path: block for path in sorted(PACKAGE.rglob("*.py")) if (block := face_block(path)) is not None}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def typed_names(block: ast.If) -> tuple[dict[str, str], dict[str, str]]:
    """Name -> home, and old name -> new name, as type checkers read them."""
    homes, renamed = {}, {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, f"{alias.name}: only 'X as X' is a name that checkers re-export"
                homes[alias.name] = node.module
        else:
            assert isinstance(node, ast.Assign), ast.unparse(node)
            renamed[node.targets[0].id] = node.value.id
    return homes, renamed


def lazy_names(block: ast.If) -> tuple[dict[str, str], dict[str, str]]:
    """The same, as the interpreter reads them."""
    call = next(node for tree in block.orelse for node in ast.walk(tree) if isinstance(node, ast.Call))
    homes = {name: home for home, names in ast.literal_eval(call.args[1]).items() for name in names}
    renamed = next((ast.literal_eval(k.value) for k in call.keywords if k.arg == "renamed"), {})
    return homes, renamed


@pytest.mark.parametrize("path", FACES, ids=module_name)
def test_both_tables_say_the_same(path):
    assert typed_names(FACES[path]) == lazy_names(FACES[path])


@pytest.mark.parametrize("path", FACES, ids=module_name)
def test_every_name_comes_from_where_the_table_says(path):
    face = importlib.import_module(module_name(path))
    homes, _ = lazy_names(FACES[path])
    for name, home in homes.items():
        value = getattr(face, name)
        if home == face.__name__:
            assert inspect.ismodule(value)
        else:
            assert value is getattr(importlib.import_module(home), name)
    assert set(homes) <= set(face.__all__)
    assert set(homes) <= set(dir(face))


@pytest.mark.parametrize("path", FACES, ids=module_name)
def test_no_name_is_also_a_file(path):
    """Importing ``room/name.py`` binds it as ``room.name``, whatever a lazy table says: such a room imports at once."""
    if path.name != "__init__.py":
        return
    homes, _ = lazy_names(FACES[path])
    files = {other.stem for other in path.parent.iterdir() if other.suffix == ".py" or other.is_dir()}
    assert not {name for name, home in homes.items() if home != module_name(path)} & files


def test_star_import_and_misspelt_names():
    scope: dict[str, object] = {}
    exec("from torch_bgdebias.swap import *", scope)
    assert {"BackgroundSwap", "sample_swap_params"} <= set(scope)
    import torch_bgdebias

    with pytest.raises(AttributeError, match=r"module 'torch_bgdebias' has no attribute 'Swap'; it has .*BackgroundSw"):
        _ = torch_bgdebias.Swap


def test_no_face_wakes_torch():
    """Neither the package, its callbacks nor a lazy room imports torch before a name is used."""
    modules = [module_name(path) for path in FACES]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
