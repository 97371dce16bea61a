"""Locals are named by what they hold, docstrings are short and refer to other names in one way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "torch_bgdebias"
TREES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

#: what happened to a thing, not what it is
NO_NAMES = {"told", "found", "kept", "made"}
#: these in the package alone: tests say ``done = subprocess.run(...)``
NO_NAMES_IN_THE_PACKAGE = NO_NAMES | {"got", "done", "thing", "things", "stuff", "res", "ret", "tmp", "temp"}
#: lines of a docstring without its example; an object of many settings may have two for each
MOST = 35


def names_in_functions() -> list[str]:
    stray = []
    tests = {path: ast.parse(path.read_text()) for path in sorted(TESTS.rglob("*.py"))}
    for path, tree in {**TREES, **tests}.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.Lambda):
                nodes = list(ast.walk(function))
                stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                names = stored | {n.arg for n in nodes if isinstance(n, ast.arg)}
                stray_ones = names & (NO_NAMES_IN_THE_PACKAGE if path in TREES else NO_NAMES)
                stray += [f"{path.relative_to(TESTS.parent)}:{function.lineno} {name}" for name in stray_ones]
    return stray


def docstrings() -> list[tuple[str, str, int]]:
    """Where it stands, its text, and how many annotated fields the class has."""
    texts = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                name = getattr(node, "name", "")
                fields = sum(isinstance(child, ast.AnnAssign) for child in node.body)
                texts.append((f"{path.relative_to(PACKAGE)} {name}", text, fields))
    return texts


def test_locals_say_what_they_hold():
    assert names_in_functions() == []


def test_docstrings_leave_the_rest_to_the_cards():
    too_long = []
    for place, text, fields in docstrings():
        lines = text.split("Example:")[0].rstrip().count("\n") + 1
        if lines > max(MOST, 2 * fields):
            too_long.append(f"{place}: {lines} lines")
    assert too_long == []


def test_docstrings_refer_to_names_in_one_way():
    """```name``` alone, as in `torch_bgdebias.BackgroundSwap`: no roles of a documentation tool."""
    assert [
        place for place, text, _ in docstrings() if re.search(r":(class|func|meth|mod|data|attr|obj):`", text)
    ] == []
