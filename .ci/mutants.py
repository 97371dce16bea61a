"""Draw small mistakes by a seed, put each into a copy of the package, and see whether the tests notice.

    python .ci/mutants.py --count 200 --seed 0                # all of it
    python .ci/mutants.py --count 200 --range 0 40            # a part of the same 200
    python .ci/mutants.py --at torch_bgdebias/batch.py:61     # what can be changed in a line

A mistake turns a comparison, an arithmetic operation or a number into another one; docstrings, messages of errors and
warnings, annotations and defaults of command lines are left alone. Every mutant runs the test files that mirror its
file, with a time limit (no end counts as noticed, where the tests end without the mistake). A line each: caught or NOT
CAUGHT.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import importlib
import os
import py_compile
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "torch_bgdebias"
COMPARISONS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
}  # fmt: skip
ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
WARM = ("torch", "lightning", "pytorch_lightning", "kornia", "scipy.stats", "hypothesis", "PIL.Image", "zennit")
LEFT_ALONE = ("Error", "Warning", "warn", "getLogger", "add_argument", "Example")


#: what no test can notice, by file, line and change: why
EQUIVALENT = {
    ("backgrounds/generation/sources.py", 'self._sized = {"height", "width"} <= set(accepted)', "<= -> <"): (
        "accepted holds prompt as well, or the line above has raised: it is never equal to the two"
    ),
    ("masks/grabcut.py", "share = 1 / (1 + np.exp(np.clip(background - foreground, -50, 50)))", "50 -> (50 * 2)"): (
        "a share of 2e-22 and one of 4e-44 add nothing to a count in float64, and a single one is 0 on any page"
    ),
    ("clad/callback.py", "foreground = torch.full_like(key, -1)", "1 -> 2"): "whatever is below 0 is no class",
    ("data/correlated.py", "draws = torch.rand(13, generator=generator)", "13 -> (13 * 2)"): (
        "the first thirteen are the same, and nobody takes another number of this generator"
    ),
    ("masks/outlines.py", "outside[0] = outside[-1] = outside[:, 0] = outside[:, -1] = True", "1 -> 2"): (
        "the ring's last row is reached from its columns, and what is free in the row before lies open to it"
    ),
    ("metrics/pixel_ratio.py", "self.targets.append(torch.where(weight.bool(), group, -1).float())", "1 -> 2"): (
        "whatever is below 0 is dropped"
    ),
    (
        "audit/permuting.py",
        "upper = -special.expm1(-np.exp(-np.maximum(excess, -30.0)))  # the chance of more",
        "30.0 -> (30.0 * 2)",
    ): "both are a chance of 1 in float64, and exp overflows at neither",
    (
        "probe/passes/entry.py",
        "if self.weight.shape[0] == self.weight.shape[1] and torch.equal(self.weight, self.weight.diag().diag()):",
        "0 -> 1",
    ): "a matrix that is not square does not equal its diagonal's, which is",
    ("metrics/intervals.py", "if abs(a) < 1e-9:", "< -> <="): "a computed skewness is never that number exactly",
    ("lrp/input_layer.py", "below += (below >= 0).to(below.dtype).mul_(2 * epsilon).sub_(epsilon)", ">= -> >"): (
        "below is a sum of parts that are no less than 0: where it is 0 all of them are, and get 0 of any share"
    ),
}


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` at a line and column of a file."""

    path: Path
    line: int
    column: int
    old: str
    new: str

    def applied(self, source: str) -> str:
        lines = source.splitlines(keepends=True)
        row = lines[self.line - 1].encode()
        assert row[self.column :].startswith(self.old.encode()), (self, row)
        changed = row[: self.column] + self.new.encode() + row[self.column + len(self.old.encode()) :]
        lines[self.line - 1] = changed.decode()
        return "".join(lines)

    @property
    def equivalent(self) -> bool:
        text = self.path.read_text().splitlines()[self.line - 1].strip()
        return (str(self.path.relative_to(PACKAGE)), text, f"{self.old} -> {self.new}") in EQUIVALENT

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}:{self.column} {self.old} -> {self.new}"


class Places(ast.NodeVisitor):
    """All mutants of one file."""

    def __init__(self, path: Path) -> None:
        self.path, self.source = path, path.read_text()
        self.lines = self.source.splitlines()
        self.mutants: list[Mutant] = []
        self.visit(ast.parse(self.source))

    def visit_Raise(self, node: ast.Raise) -> None:
        """Messages are tested by their words elsewhere."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts."""

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        if not any(name.rsplit(".", 1)[-1].endswith(word) for word in LEFT_ALONE):
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # no docstrings
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if type(operator) in COMPARISONS:
                self._between(left, right, *COMPARISONS[type(operator)])
            left = right
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        words = any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (node.left, node.right))
        if type(node.op) in ARITHMETIC and not words:
            self._between(node.left, node.right, *ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float) or node.end_col_offset is None:
            return
        row = self.lines[node.lineno - 1].encode()
        old = row[node.col_offset : node.end_col_offset].decode()
        new = {0: "1", 1: "2"}.get(node.value, f"({old} * 2)")
        self.mutants.append(Mutant(self.path, node.lineno, node.col_offset, old, new))

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """The operator stands on one line between its operands; others are left out."""
        if left.end_lineno != right.lineno or left.end_col_offset is None:
            return
        between = self.lines[right.lineno - 1].encode()[left.end_col_offset : right.col_offset].decode()
        at = between.find(f" {old} ")
        if at >= 0:
            self.mutants.append(Mutant(self.path, right.lineno, left.end_col_offset + at + 1, old, new))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def drawn(count: int, seed: int) -> list[Mutant]:
    """Files in proportion to what can be changed in them, never one place twice."""
    every = [
        mutant for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("__init__.py", "_lazy.py", "__main__.py")
        for mutant in Places(path).mutants
    ]  # fmt: skip
    return random.Random(seed).sample(every, count)


def at(places: list[str]) -> list[Mutant]:
    """All mutants at lines that are named, ``torch_bgdebias/batch.py:12``, or at ``FILE:LINE:COLUMN``."""
    mutants = []
    for place in places:
        name, line, *column = place.split(":")
        here = [mutant for mutant in Places(ROOT / name).mutants if mutant.line == int(line)]
        mutants += [mutant for mutant in here if not column or mutant.column == int(column[0])]
    return mutants


def mirror(path: Path, root: Path = ROOT) -> list[Path]:
    """Test files called after the file, else all of its room (not those of rooms inside)."""
    relative = path.relative_to(PACKAGE)
    folder = root / "tests" / relative.parent
    stem = relative.stem.lstrip("_")
    own = sorted({*folder.glob(f"test_{stem}.py"), *folder.glob(f"test_{stem}_*.py")})
    return own or sorted(folder.glob("test_*.py"))


def warm() -> None:
    """Import what the tests need and what no mistake is put into, so that a fork of this process has it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in WARM:
            try:
                importlib.import_module(name)
            except ImportError:
                print(f"not there: {name}")
    import torch

    torch.set_num_threads(1)


class Failures:
    """A plugin of pytest's that keeps the names of what failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.names.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.names.append(report.nodeid)


def tested(copy: Path, chosen: list[str], limit: float) -> tuple[int | None, list[str]]:
    """Exit code of pytest in a fork of this process (``None``: no end), and what failed."""
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.chdir(copy)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nowhere, stream)
            sys.path.insert(0, str(copy))
            os.environ["PYTHONPATH"] = str(copy)
            code = 3
            try:
                import pytest

                failures = Failures()
                options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-n", "0", "--rootdir", str(copy)]
                code = int(pytest.main([*options, *chosen], plugins=[failures]))
                Path(file.name).write_text("\n".join(failures.names))
            finally:
                os._exit(code)
        end = time.monotonic() + limit
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return None, []
            time.sleep(0.05)
        return os.waitstatus_to_exitcode(ended[1]), Path(file.name).read_text().splitlines()


def run(
    mutant: Mutant, copy: Path, limit: float, broad: bool, sound: dict[str, bool], named: list[str] | None = None
) -> str:
    """``caught``, ``NOT CAUGHT`` or why there is no verdict; ``sound`` remembers which tests pass without a mistake."""
    if mutant.equivalent:
        return "equivalent"
    target = copy / mutant.path.relative_to(ROOT)
    original = mutant.path.read_text()
    tests = mirror(mutant.path, copy)
    if broad:
        tests = sorted((copy / "tests" / mutant.path.parent.relative_to(PACKAGE)).rglob("test_*.py"))
    if named:
        tests = [copy / name for name in named]
    chosen = [*map(str, tests), str(target)]
    target.write_text(mutant.applied(original))
    try:
        code, failed = tested(copy, chosen, limit)
    finally:
        target.write_text(original)
    if code is None:
        ends = " ".join(chosen)
        if ends not in sound:
            sound[ends] = tested(copy, chosen, limit)[0] is not None
        if not sound[ends]:
            return "NO VERDICT: the tests do not end in time without it either"
    for name in failed:
        if name not in sound:
            sound[name] = tested(copy, [name], limit)[0] == 0
    if not all(sound[name] for name in failed):
        return f"FAILS ANYWAY {failed}"
    if code in (3, 5):
        return {3: "pytest broke", 5: "no tests"}[code]
    return {0: "NOT CAUGHT", None: "caught (no end)"}.get(code, "caught")


def copied(folder: Path) -> Path:
    """The tree beside itself, compiled so that a changed file, and none besides, is compiled again."""
    copy = folder / "copy"
    skip = shutil.ignore_patterns(".git", ".venv", "build", ".*_cache", ".hypothesis", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=skip)
    if (ROOT.parent / "shared").is_dir():  # reference arrays that some tests compare with
        (folder / "shared").symlink_to((ROOT.parent / "shared").resolve())
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(copy / "torch_bgdebias", quiet=2, invalidation_mode=mode)
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--range", type=int, nargs=2, metavar=("FIRST", "END"), help="only these of the drawn ones")
    parser.add_argument("--at", nargs="+", metavar="FILE:LINE", help="instead of drawn ones, all at these lines")
    parser.add_argument("--limit", type=float, default=300, help="seconds a mutant")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after so long")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="these tests, not the file's own")
    parser.add_argument("--broad", action="store_true", help="all tests of the room, not only the file's own")
    args = parser.parse_args()
    mutants = at(args.at) if args.at else drawn(args.count, args.seed)
    first, end = args.range or (0, len(mutants))
    began, verdicts, sound = time.monotonic(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        if not args.list:
            copy = copied(Path(folder))
            warm()
        for number in range(first, min(end, len(mutants))):
            if time.monotonic() - began > args.seconds:
                print(f"stopped: go on with --range {number} {end}")
                break
            verdict = "" if args.list else run(mutants[number], copy, args.limit, args.broad, sound, args.tests)
            verdicts.append(verdict)
            print(f"{number:4} {verdict:16} {mutants[number]}", flush=True)
    if not args.list:
        missed = sum(not verdict.startswith(("caught", "equivalent")) for verdict in verdicts)
        print(f"{len(verdicts)} mutants, {missed} not caught")
        sys.exit(missed > 0.05 * len(verdicts))


if __name__ == "__main__":
    main()
