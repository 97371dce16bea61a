"""``--groups`` and ``--unit`` of ``bgdebias probe``: groups of pictures, and pictures that are not independent."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_bgdebias.files import first_few
from torch_bgdebias.probe import groups_from_csv, groups_from_folders

__all__ = ["named_groups", "one_unit"]

#: more names than this in a column of a table that is given whole are taken for something else than groups
_MOST_GROUPS = 50


def named_groups(options: Sequence[str], items: Any, root: Path) -> dict[str, list[str]]:
    """The groups of every picture, by what groups them.

    Args:
        options: each ``FILE.csv:COLUMN``, ``FILE.csv`` (every column that divides the pictures), ``folder:LEVEL``, or
            ``COLUMN`` of a table that lies in ``root``.
        items: the data set, which knows its files.
        root: its folder.

    Raises:
        OSError, ValueError: no such table, column or folder, or pictures without a row.
    """
    groups: dict[str, list[str]] = {}
    for text in options:
        for name, names in _groups(text, items, root, option="--groups").items():
            if name in groups:
                raise ValueError(f"--groups: {name!r} is named twice")
            groups[name] = names
    return groups


def one_unit(option: str, items: Any, root: Path) -> list[str]:
    """What each picture belongs to, from the one column or folder that is named; arguments as for `named_groups`.

    Raises:
        OSError, ValueError: as there, or a table without a column.
    """
    if _is_table(option):
        raise ValueError(f"--unit: expected a column, {option}:COLUMN, got a table")
    return next(iter(_groups(option, items, root, option="--unit").values()))


def _groups(text: str, items: Any, root: Path, *, option: str) -> dict[str, list[str]]:
    table, colon, column = text.rpartition(":")
    if table == "folder" and column.isdigit() and int(column) > 0:
        return {f"folder {column}": groups_from_folders(items, int(column))}
    if _is_table(text):
        return _every_column(Path(text), items)
    if colon and _is_table(table):
        return {column: groups_from_csv(table, items, column)}
    return {text: groups_from_csv(_table_with(text, root, option), items, text)}


def _is_table(text: str) -> bool:
    return text.lower().endswith(".csv")


def _every_column(path: Path, items: Any) -> dict[str, list[str]]:
    """The columns after the first that have between two and fifty names."""
    all_groups = {column: groups_from_csv(path, items, column) for column in _columns(path)[1:]}
    groups = {column: names for column, names in all_groups.items() if 2 <= len(set(names)) <= _MOST_GROUPS}
    if not groups:
        raise ValueError(
            f"--groups: {path} has no column after the first with 2 to {_MOST_GROUPS} names; name one: {path}:COLUMN"
        )
    return groups


def _table_with(column: str, root: Path, option: str) -> Path:
    """The one table in a folder that has this column."""
    tables = sorted(path for path in root.glob("*.csv") if path.is_file())
    fitting = [path for path in tables if column in _columns(path)]
    if len(fitting) == 1:
        return fitting[0]
    forms = "expected FILE.csv:COLUMN, folder:LEVEL, or a column of a table in --data"
    if fitting:
        raise ValueError(f"{option}: {forms}; {first_few(path.name for path in fitting)} have {column!r} both")
    tables_text = (
        "; ".join(f"{path.name} has {first_few(_columns(path), 8)}" for path in tables) or f"no table in {root}"
    )
    raise ValueError(f"{option}: {forms}, got {column!r} ({tables_text})")


def _columns(path: Path) -> list[str]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(next(csv.reader(file), []))
