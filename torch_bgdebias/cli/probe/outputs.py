"""Which of the model's outputs is which class of the data."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import describe
from torch_bgdebias.models import logits_of

__all__ = ["count_outputs", "name_outputs", "read_outputs"]


def read_outputs(path: Path | None, names: list[str]) -> list[int]:
    """The model's output of each class: its number, unless ``--labels`` says otherwise.

    Raises:
        ValueError: no JSON, not of that form, or a class is missing.
    """
    if path is None:
        return list(range(len(names)))
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--labels: {path} is not JSON: {error}") from error
    if not isinstance(given, dict) or not all(isinstance(v, int) and v >= 0 for v in given.values()):
        raise ValueError(f'--labels: {path}: expected {{"class folder": output, ...}} with whole numbers')
    if absent := [name for name in names if name not in given]:
        raise ValueError(f"--labels: {path} has no output for {', '.join(absent[:5])} ({len(absent)} classes)")
    return [given[name] for name in names]


def count_outputs(model: nn.Module, image: Tensor) -> int:
    """K; a model that does not take the pictures is the user's to mend, so it is told in one line."""
    try:
        with torch.no_grad():
            output = logits_of(model(image))
    except (RuntimeError, TypeError, AssertionError) as error:
        shown = tuple(image.shape)
        raise ValueError(f"--model: {type(model).__name__} failed on a picture {shown}: {error}; see --size") from error
    if output.ndim != 2 or output.shape[1] < 2:
        raise ValueError(f"--model: expected logits of at least two classes (B, K), got {describe(output)}")
    return int(output.shape[1])


def name_outputs(names: list[str], outputs: list[int], count: int, labels: Path | None) -> list[str]:
    """A name for each of the model's outputs."""
    if max(outputs) >= count:
        worst = names[outputs.index(max(outputs))]
        raise ValueError(
            f"--data: label {max(outputs)} ({worst}) is outside the model's {count} outputs; --labels FILE says which "
            "output each class folder is"
        )
    if labels is None and count != len(names):
        raise ValueError(
            f"--data: the model has {count} outputs and the data {len(names)} classes ({', '.join(names[:4])}, ...): "
            "say with --labels FILE which output each class folder is"
        )
    by_output = {output: name for name, output in zip(names, outputs, strict=True)}
    return [by_output.get(i, str(i)) for i in range(count)]
