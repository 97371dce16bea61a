"""Print every floor of performance beside its goal: ``python benchmarks/floors.py``, or ``make bench``.

``floors.toml`` has the floors; a command that several of them name runs once. ``--list`` prints what is written there,
which goals are held and which are missed and why, without running anything; ``--only WORD`` takes those with the word
in their name. Ends with 1 where a goal is missed that was held when it was written down.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.common import ROOT, machine

FILE = Path(__file__).with_name("floors.toml")


@dataclass(frozen=True)
class Floor:
    """One figure: the command that prints it, how it is read there, the goal, and what it printed where and when.

    ``missed`` says why a goal is not reached, or why it is open (nothing was printed yet), and is empty for one that is
    reached; ``quoted`` is the card with the figure.
    """

    name: str
    command: str
    figure: str
    unit: str
    goal: float
    machine: str
    date: str
    printed: float | None = None
    least: bool = False
    missed: str = ""
    quoted: str = ""
    seconds: int = 300

    def read(self, said: str) -> float:
        match = re.search(self.figure, said, re.MULTILINE)
        if match is None:
            raise ValueError(f"{self.name}: expected {self.figure!r} in what {self.command} prints")
        return float(match.group(1))

    def reached(self, figure: float) -> bool:
        return figure >= self.goal if self.least else figure <= self.goal


def floors(path: Path = FILE) -> list[Floor]:
    return [Floor(**entry) for entry in tomllib.loads(path.read_text())["floor"]]


def output(floor: Floor) -> str:
    """What the command says, or why it said nothing."""
    command = [sys.executable, *floor.command.split()]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=floor.seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {floor.seconds} s"
    return done.stdout if done.returncode == 0 else f"failed: {done.stderr[-400:]}"


def line(floor: Floor, figure: float | None, verdict: str) -> str:
    sense = ">=" if floor.least else "<="
    number = "" if figure is None else f"{figure:.2f}"
    goal = f"{floor.unit:20}{sense} {floor.goal:<7g}{verdict:10}"
    printed = "" if floor.printed is None else f"{floor.printed:g}"
    return f"{floor.name:64}{number:>9} {goal}{printed:>8}  {floor.date}, {floor.machine}"


def described(floor: Floor) -> str:
    """What is written down of a floor: whether it was held, and if not, why."""
    reason = f"\n    {floor.missed}" if floor.missed else ""
    verdict = "open" if floor.printed is None else "held" if floor.reached(floor.printed) else "missed"
    return f"{line(floor, None, verdict)}\n    python {floor.command}{reason}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    chosen = [floor for floor in floors() if args.only in floor.name]
    print(", ".join(f"{key} {value}" for key, value in machine(torch.device("cpu")).items()))
    print(f"{'':64}{'here':>9} {'':20}{'goal':10}{'':10}{'written':>8}  when and where")
    said: dict[str, str] = {}
    missed = False
    for floor in chosen:
        if args.list:
            print(described(floor))
            continue
        if floor.command not in said:
            said[floor.command] = output(floor)
        try:
            figure = floor.read(said[floor.command])
        except ValueError as error:
            print(line(floor, None, "no figure"), f"\n   {error}; {said[floor.command][-300:]}", flush=True)
            missed = True
            continue
        missed |= not floor.reached(figure) and not floor.missed
        print(
            line(floor, figure, "yes" if floor.reached(figure) else "as known" if floor.missed else "MISSED"),
            flush=True,
        )
    sys.exit(missed)


if __name__ == "__main__":
    main()
