"""The house's arrows, read from the sources: who may import whom, no circles, nothing too long; what importing costs.

``python tests/test_imports.py`` prints the arrows. This is the one list of them; the documentation points here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "torch_bgdebias"
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).resolve().parent.rglob("*.py"))

#: files beneath all rooms, the lowest first: each may import those above it in this list
GROUND_FLOOR = (
    "names", "seeds", "_version", "_deprecated", "_optional", "_lazy", "checks", "first_batches", "moved_pixels",
    "writing", "records", "precision", "batch_places", "batch", "calls", "sharded", "models", "stages", "class_names",
    "subsets", "probabilities", "superclasses", "preprocessing", "depth", "files", "unread", "ops", "compositing",
    "checkpoints", "named_models",
)  # fmt: skip
#: room -> the rooms that it may import, beside itself and the ground floor
ARROWS: dict[str, set[str]] = {
    "lightning": set(),
    "lrp": set(),
    "clad": set(),
    "metrics": {"backgrounds"},
    "concepts": set(),
    "masks": set(),
    "data": {"masks", "backgrounds"},
    "backgrounds": {"masks"},
    "swap": {"backgrounds"},
    "attribution": {"lrp"},
    "isnet": {"lrp"},
    "heads": {"backgrounds", "swap", "metrics"},
    "finetuning": set(),
    "probe": {"backgrounds", "swap", "clad", "isnet", "concepts", "attribution", "metrics", "data", "masks"},
    "audit": {"probe", "metrics", "data", "masks", "attribution", "backgrounds"},
    "train": {"data", "lightning"},
    "cli": {
        "lrp", "clad", "metrics", "concepts", "masks", "data", "backgrounds", "swap", "attribution", "isnet", "probe",
        "lightning", "train", "heads", "audit",
    },
}  # fmt: skip
#: the faces: the package itself and ``callbacks`` name what rooms define, and no room imports them
FACES = {"__init__", "callbacks"}
#: files called ``callback*.py`` may import ``lightning.py``; those of these rooms meet the augmentation as well
CALLBACK_ARROWS: dict[str, set[str]] = {"clad": {"swap", "backgrounds"}, "isnet": {"swap"}}

#: partner -> where its import may stand, as a room or a file
PARTNERS: dict[str, set[str]] = {
    "zennit": {"lrp"},
    "pytorch_lightning": {"lightning", "train.py"},
    "lightning": {"lightning"},
    "kornia": {"swap", "data", "backgrounds"},
    "torchmetrics": {"metrics", "probe"},
    **{only_by_require: set() for only_by_require in ("cv2", "captum", "diffusers", "matplotlib", "sklearn")},
}

#: longest file, and longest body of a function without its docstring
MOST_LINES, MOST_BODY_LINES = 400, 50


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module, absolute, also those inside functions, and whether it is for type checkers only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = ("torch_bgdebias", *path.relative_to(PACKAGE).with_suffix("").parts)
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [(alias.name, id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # a name may be a file of the package or something that the package's face shows
            modules += [(f"{stem}.{alias.name}", id(node) in typing_only) for alias in node.names]
    return modules


def file_of(module: str) -> Path | None:
    """The file of this package that an imported name lies in, the longest part of it that is one."""
    parts = module.split(".")
    if parts[0] != "torch_bgdebias":
        return None
    for length in range(len(parts), 0, -1):
        place = PACKAGE.joinpath(*parts[1:length])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None


def targets(path: Path) -> set[Path]:
    """The files of this package that a file imports, anywhere in it."""
    return {target for module, _ in imports(path) if (target := file_of(module)) is not None}


def allowed(path: Path) -> set[str]:
    room = room_of(path)
    if room in FACES:
        return {*GROUND_FLOOR, *ARROWS, *FACES}
    if room in GROUND_FLOOR:
        return {*GROUND_FLOOR[: GROUND_FLOOR.index(room)], room}
    extra = {"lightning"} | CALLBACK_ARROWS.get(room, set()) if path.name.startswith("callback") else set()
    return {*GROUND_FLOOR, *ARROWS[room], room, *extra}


def circles(graph: dict[Path, set[Path]]) -> list[list[Path]]:
    """Groups of files that reach each other, by Tarjan's algorithm; a file that imports itself is one too."""
    order: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    groups = []

    def visit(node: Path) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for after in sorted(graph[node]):
            if after not in order:
                visit(after)
                low[node] = min(low[node], low[after])
            elif after in stack:
                low[node] = min(low[node], order[after])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1 or node in graph[node]:
                groups.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return groups


def bodies(path: Path) -> Iterator[tuple[str, int]]:
    """Every function of a file, with the lines of its body without the docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant)
            rest = node.body[1:] if documented else node.body
            yield f"{relative(path)}:{node.name}", node.end_lineno - rest[0].lineno + 1 if rest else 0


def arrows_text() -> str:
    """The list that the tests prove, and the arrows that are really there."""
    drawn: dict[str, set[str]] = {}
    for path in FILES:
        drawn.setdefault(room_of(path), set()).update(room_of(t) for t in targets(path))
    lines = ["ground floor, each file may import those before it: " + " ".join(GROUND_FLOOR), ""]
    for room, may in ARROWS.items():
        rooms = sorted(drawn.get(room, set()) & set(ARROWS) - {room})
        lines.append(
            f"{room:<12} may import {' '.join(sorted(may)) or 'the ground floor'}; imports {' '.join(rooms) or '-'}"
        )
    return "\n".join(lines)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_arrows_point_down(path):
    for target in sorted(targets(path)):
        assert room_of(target) in allowed(path), f"{relative(path)} must not import {relative(target)}"


def test_every_room_is_in_the_list():
    print(arrows_text())
    assert {room_of(path) for path in FILES} == {*GROUND_FLOOR, *ARROWS, *FACES}


def test_no_circles():
    """None inside a room either, and none that an import within a function or for type checkers would hide."""
    loops = circles({path: targets(path) for path in FILES})
    shown = [" <-> ".join(map(relative, group)) for group in loops]
    assert not loops, shown


def test_a_circle_is_found():
    a, b, c, d = (Path(name) for name in "abcd")
    assert circles({a: {b}, b: {c}, c: {a}, d: {a}}) == [[a, b, c]]
    assert circles({a: {a}, b: {a}}) == [[a]]
    assert circles({a: {b, c}, b: {d}, c: {d}, d: set()}) == []


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_partners_stay_in_their_rooms(path):
    for module, typing_only in imports(path):
        top = module.split(".")[0]
        if typing_only or top not in PARTNERS:
            continue
        callback = path.name.startswith("callback") and top == "pytorch_lightning"
        assert callback or {room_of(path), relative(path)} & PARTNERS[top], f"{relative(path)} must not import {top}"


def test_files_and_functions_are_short():
    files = {relative(path): len(path.read_text().splitlines()) for path in FILES}
    functions = [(name, lines) for path in FILES for name, lines in bodies(path) if lines > MOST_BODY_LINES]
    tests = {p.relative_to(PACKAGE.parent / "tests").as_posix(): len(p.read_text().splitlines()) for p in TESTS}
    long_files = {name for name, lines in files.items() if lines > MOST_LINES}
    long_tests = {name for name, lines in tests.items() if lines > MOST_LINES}
    assert not long_files, {name: files[name] for name in long_files}
    assert not functions, functions
    assert not long_tests, {name: tests[name] for name in long_tests}


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


@pytest.mark.parametrize(
    "room", ["clad", "metrics", "data", "swap", "isnet", "lrp", "ops", "probe", "callbacks", "masks", "backgrounds"]
)
def test_rooms_do_not_wake_the_trainer_or_the_gpu(room):
    run(f"""
        import sys, torch, importlib
        importlib.import_module("torch_bgdebias.{room}")
        assert "pytorch_lightning" not in sys.modules
        assert not torch.cuda.is_initialized()
    """)


if __name__ == "__main__":
    print(arrows_text())
