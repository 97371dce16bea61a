"""What several experiments need."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import machine
from torch_bgdebias import __version__
from torch_bgdebias.backgrounds import BackgroundBank


def add_line(path: Path, settings: dict[str, Any], **figures: Any) -> dict[str, Any]:
    """Append one run as a line of JSON: its settings (the seed among them), its figures, versions, machine and date.

    One write a line, so that several processes may share the file.
    """
    versions = {"torch": torch.__version__, "numpy": np.__version__, "torch_bgdebias": __version__}
    about = {"versions": versions, "machine": machine(torch.device("cpu")), "date": time.strftime("%Y-%m-%d")}
    line = {"settings": settings, **figures, **about}
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")
    return line


def read_lines(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The runs in files of lines, in their order."""
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def made_with(lines: Iterable[dict[str, Any]]) -> str:
    """Machines, versions and dates of runs, for the sentence above a table."""
    lines = list(lines)
    machines = sorted({f"{line['machine']['processor']}, torch {line['machine']['torch']}" for line in lines})
    dates = sorted({line["date"] for line in lines})
    if not lines:
        return "no runs"
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{len(lines)} run{'s' if len(lines) > 1 else ''}; {'; '.join(machines)}; {when}"


def accuracy(model: nn.Module, image: Tensor, label: Tensor) -> float:
    """Percent of the images whose largest logit is the label's, in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        right = [model(x).argmax(1) == y for x, y in zip(image.split(500), label.split(500), strict=True)]
    return 100 * float(torch.cat(right).float().mean())


def split_bank(bank: BackgroundBank, test: float = 0.25) -> tuple[BackgroundBank, BackgroundBank]:
    """A bank for training and one of the last quarter of every category for the tests."""
    assert bank.labels is not None
    held_out = torch.zeros(len(bank), dtype=torch.bool)
    for category in range(bank.num_classes):
        members = (bank.labels == category).nonzero().flatten()
        held_out[members[int(len(members) * (1 - test)) :]] = True
    return bank.subset(~held_out), bank.subset(held_out)
