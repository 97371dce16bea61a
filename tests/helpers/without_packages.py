"""A plugin of pytest, or a module to import first: packages named in ``WITHOUT`` (comma-separated) are not there.

``WITHOUT=lightning python -m pytest -p without_packages ...`` with this folder on ``PYTHONPATH``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from typing import Any

BLOCKED = tuple(name for name in os.environ.get("WITHOUT", "").split(",") if name)


class Absent:
    """A finder that finds none of them."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _absent_to_those_who_ask() -> None:
    """Other packages look for the module or for its installed metadata instead of importing it."""
    find_spec, from_name = importlib.util.find_spec, importlib.metadata.Distribution.from_name

    def find(name: str, package: str | None = None) -> Any:
        return None if name.split(".")[0] in BLOCKED else find_spec(name, package)

    def distribution(name: str) -> Any:
        if name.replace("-", "_") in BLOCKED:
            raise importlib.metadata.PackageNotFoundError(name)
        return from_name(name)

    importlib.util.find_spec = find
    importlib.metadata.Distribution.from_name = distribution  # type: ignore[method-assign, assignment]


if BLOCKED:
    present = [name for name in BLOCKED if name in sys.modules]
    assert not present, f"imported before they could be hidden: {present}"
    sys.meta_path.insert(0, Absent())  # type: ignore[arg-type]
    _absent_to_those_who_ask()
