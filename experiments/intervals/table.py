"""The tables of README.md and of the cards, from the lines beside this file.

python -m experiments.intervals.table simulated       coverage of intervals, from results.jsonl
python -m experiments.intervals.table performance     of AUC and the like, from performance.jsonl
python -m experiments.intervals.table certificates    how often a bound holds, from certificate.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.common import read_lines

HERE = Path(__file__).parent
Lines = list[dict[str, Any]]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    table = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def span(lines: Lines, name: str = "coverage") -> str:
    """From the worst to the best, in percent; nothing of no lines."""
    values = [100 * line[name] for line in lines]
    return f"{min(values):.1f} to {max(values):.1f}" if values else ""


def by_number(lines: Lines, figures: Iterable[str]) -> list[list[str]]:
    """A row for each figure: from the worst to the best of the settings, for each number of images."""
    numbers = sorted({line["n"] for line in lines})
    of = {figure: [line for line in lines if line["figure"] == figure] for figure in figures}
    return [[figure, *(span([x for x in of[figure] if x["n"] == n]) for n in numbers)] for figure in of]


def heads(lines: Lines) -> list[str]:
    """The first column and those of the numbers of images."""
    return ["figure", *(f"n {n}" for n in sorted({line["n"] for line in lines}))]


def simulated(lines: Lines) -> str:
    """Coverage with and without groups; accuracy 1, where an interval holds the truth always or never, by itself."""
    rows = []
    for grouped in (False, True):
        these = [line for line in lines if line["groups"] is grouped]
        usual = [line for line in these if line.get("accuracy") != 1]
        for row in by_number(usual, dict.fromkeys(line["figure"] for line in these)):
            perfect = [line for line in these if line["figure"] == row[0] and line.get("accuracy") == 1]
            rows.append([f"{row[0]}, groups of 4" if grouped else row[0], *row[1:], span(perfect)])
    return markdown([*heads(lines), "accuracy 1, all n"], rows)


def performance(lines: Lines) -> str:
    """Coverage at three areas."""
    return markdown(heads(lines), by_number(lines, dict.fromkeys(line["figure"] for line in lines)))


def certificates(lines: Lines) -> str:
    """How often the bounds hold, and their mean, in percent."""
    columns = ("held", "held_first", "held_counted_as_images", "at_least", "first_at_least")
    rows = [
        [line["objects"], f"{100 * line['truth']:.0f}", f"{line['n']}, {line['m']}"]
        + [f"{100 * line[column]:.1f}" for column in columns]
        for line in lines
    ]
    return markdown(["objects", "truth", "n, m", "holds", "first", "as images", "mean bound", "first"], rows)


#: name -> the lines' file and what lays them out
TABLES: dict[str, tuple[str, Callable[[Lines], str]]] = {
    "simulated": ("results.jsonl", simulated),
    "performance": ("performance.jsonl", performance),
    "certificates": ("certificate.jsonl", certificates),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    file, lay_out = TABLES[parser.parse_args().table]
    print(lay_out(read_lines([HERE / file])))


if __name__ == "__main__":
    main()
