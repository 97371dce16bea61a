"""The manifest beside generated backgrounds: one JSON line a picture, enough to generate it again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_bgdebias.writing import write_text

__all__ = ["MANIFEST", "Manifest"]

MANIFEST = "backgrounds.jsonl"
#: what must agree for a picture to count as made already
_SETTINGS = ("prompt", "seed", "source", "asked_size", "options")


class Manifest:
    """Records by file name, appended one by one, so that an interrupted run loses nothing that was finished.

    A later line about the same file adds to the earlier ones: ``{"file": ..., "dropped": [...]}`` marks a picture that
    a filter took out, which is not made again.

    Args:
        root: the folder of the pictures.

    Raises:
        ValueError: a line that is no JSON object with a file (the last line may be broken off: it is passed over).
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.path = Path(root) / MANIFEST
        self.records: dict[str, dict[str, Any]] = {}
        try:
            lines = self.path.read_text("utf-8").splitlines(keepends=True) if self.path.is_file() else []
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: expected JSON lines in UTF-8: {error}") from error
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # broken off while it was written
            write_text(self.path, "".join(lines))
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                if any(not isinstance(record.get(name, ""), str) for name in ("file", "sha256")):
                    raise ValueError("expected file and sha256 as text")
                self.records.setdefault(record["file"], {}).update(record)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ValueError(f"{self.path}: line {number} is no record of a picture: {error}") from error

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record and put it on the disk."""
        line = json.dumps(record, default=str)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.setdefault(str(record["file"]), {}).update(json.loads(line))

    def hashes(self) -> set[str]:
        """Of the pixels of all pictures, dropped ones too."""
        return {record["sha256"] for record in self.records.values() if "sha256" in record}

    def require_same(self, file: str, expected: Mapping[str, Any]) -> None:
        """Raise ValueError where the picture was made with other settings than ``expected``."""
        record, expected = self.records[file], json.loads(json.dumps(expected, default=str))
        differing = [name for name in _SETTINGS if name in expected and record.get(name) != expected[name]]
        if differing:
            differences = "; ".join(f"{name} {record.get(name)!r}, now {expected[name]!r}" for name in differing)
            raise ValueError(
                f"out: {self.path.parent / file} was made with other settings ({differences}): use another folder"
            )
