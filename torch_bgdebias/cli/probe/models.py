"""Opens the models of ``bgdebias probe`` one after the other, each with its preprocessing."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import describe
from torch_bgdebias.models import LogitsKey, evaluating, logits_of
from torch_bgdebias.named_models import LoadedModel, load_model
from torch_bgdebias.preprocessing import Preprocessing

__all__ = [
    "Candidate",
    "candidates",
    "channels_of",
    "count_outputs",
    "guessed_size",
    "logits_key",
    "open_model",
    "ready_model",
    "wanted_images",
]

#: height and width if unknown
USUAL_SIZE = 224


#: endings of the checkpoints in a folder
_CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors")


class Candidate(NamedTuple):
    """A model to measure: its name on the command line, its checkpoint, and what the report calls it."""

    model: str
    checkpoint: Path | None
    label: str


def candidates(args: argparse.Namespace) -> list[Candidate]:
    """Pair models with checkpoints: one each, or several checkpoints of one model; a folder stands for those in it.

    Raises:
        ValueError: other numbers of checkpoints or names than of models, or a folder without any.
    """
    models: list[str] = args.model
    checkpoints: list[Path | None] = [file for path in args.checkpoint or [] for file in _checkpoint_files(path)]
    if len(models) == 1 and len(checkpoints) > 1:
        models = models * len(checkpoints)
    if checkpoints and len(checkpoints) != len(models):
        raise ValueError(
            f"--checkpoint: expected one a model, or several of one model, got {len(checkpoints)} for {len(models)}"
        )
    labels = args.name or _labels(models, checkpoints)
    if len(labels) != len(models):
        raise ValueError(f"--name: expected one a model, {len(models)}, got {len(labels)}")
    if len(set(labels)) != len(labels):
        raise ValueError(f"--name: expected names that differ, got {', '.join(labels)}; name each model with --name")
    return [Candidate(*row) for row in zip(models, checkpoints or [None] * len(models), labels, strict=True)]


def _checkpoint_files(path: Path) -> list[Path]:
    """The checkpoint itself, or those in a folder, as people count: ``epoch9`` before ``epoch10``."""
    if not path.is_dir():
        return [path]
    files = [file for file in path.iterdir() if file.suffix in _CHECKPOINTS and file.is_file()]
    if not files:
        raise ValueError(f"--checkpoint: expected a file, or a folder with some of {', '.join(_CHECKPOINTS)}; "
                         f"{path} holds none")  # fmt: skip
    return sorted(files, key=lambda file: [(len(part), part) if part.isdigit() else (0, part)
                                           for part in re.split(r"(\d+)", file.name)])  # fmt: skip


def _labels(models: Sequence[str], checkpoints: Sequence[Path | None]) -> list[str]:
    """The model's name where that tells them apart, else its checkpoint's with as much of the path as is needed.

    A single checkpoint is called by its file: the model's name is that of every other training of the same network.
    """
    if len(models) == 1 and checkpoints and checkpoints[0] is not None:
        return [checkpoints[0].name]
    if len(set(models)) == len(models):
        return list(models)
    parts = [
        (model, *(path.parts if path is not None else ())) for model, path in zip(models, checkpoints, strict=True)
    ]
    for length in range(1, max(map(len, parts))):
        labels = ["/".join(folder_names[-length:]) for folder_names in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [" ".join(folder_names) for folder_names in parts]


def open_model(args: argparse.Namespace, candidate: Candidate, names: Sequence[str]) -> LoadedModel:
    """The model with its weights; outputs are those asked for, the checkpoint's, or as many as the data has classes."""
    classes = args.classes
    if classes is None and candidate.checkpoint is None and not args.pretrained:
        classes = len(names)
    is_named = candidate.model.startswith(("timm:", "torchvision:"))
    loaded = load_model(
        candidate.model,
        num_classes=classes,
        checkpoint=candidate.checkpoint,
        pretrained=args.pretrained,
        channels=args.channels,
    )
    if is_named and candidate.checkpoint is None and not args.pretrained:
        print("bgdebias probe: note: neither --checkpoint nor --pretrained: the weights are random", file=sys.stderr)
    return loaded


def ready_model(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on its device, in evaluation mode.

    Raises:
        ValueError: it has none.
    """
    try:
        return evaluating(model.to(device))
    except TypeError as error:
        raise ValueError(str(error)) from error


def guessed_size(args: argparse.Namespace, candidate: Candidate, loaded: LoadedModel) -> str:
    """What to say of a size that neither the command line nor the checkpoint gives; empty where one does."""
    is_named = candidate.model.startswith(("timm:", "torchvision:"))
    of_checkpoint = loaded.preprocessing.source.startswith("the checkpoint")
    if args.size is not None or of_checkpoint or (is_named and candidate.checkpoint is None):
        return ""
    size = loaded.preprocessing.height_width or (USUAL_SIZE, USUAL_SIZE)
    reason = (
        f"as {loaded.preprocessing.source} says" if loaded.preprocessing.size else "since nothing says another size"
    )
    return f"pictures are resized to {size[0]} x {size[1]}, {reason}"


def wanted_images(args: argparse.Namespace, loaded: LoadedModel, channels: int) -> Preprocessing:
    """What the model wants of its images, unless the command line says otherwise; 224 pixels if unknown."""
    preprocessing = loaded.preprocessing
    if args.mean is not None:
        preprocessing = replace(preprocessing, mean=args.mean, std=args.std, source="--mean and --std")
    preprocessing = preprocessing.for_channels(channels)
    size = args.size or preprocessing.size or USUAL_SIZE
    return replace(preprocessing, size=size)


def channels_of(model: nn.Module, requested: int | None) -> int:
    """Channels of the images: as asked, else as the first convolution takes, else 3.

    Raises:
        ValueError: the first convolution takes neither 1 nor 3.
    """
    if requested is not None:
        return requested
    first_layer = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    expected = 3 if first_layer is None or isinstance(first_layer, nn.LazyConv2d) else first_layer.in_channels
    if expected not in (1, 3):
        raise ValueError(f"--channels: the model's first convolution takes {expected}; pictures have 1 or 3")
    return expected


def logits_key(text: str | None) -> LogitsKey:
    """What ``--logits`` names: a number is an index."""
    return int(text) if text is not None and text.removeprefix("-").isdigit() else text


def count_outputs(model: nn.Module, image: Tensor, key: LogitsKey) -> int:
    """K; a model that does not take the pictures is the user's to mend, so one line says what came.

    Raises:
        ValueError: the model fails on a picture, or returns no logits of two classes or more.
    """
    shape = tuple(image.shape)
    try:
        with torch.no_grad():
            output = model(image)
    except (RuntimeError, TypeError, AssertionError, ValueError, LookupError) as error:
        hint = "it may want --channels or --size"
        raise ValueError(f"--model: {type(model).__name__} failed on a picture {shape}: {error}; {hint}") from error
    try:
        logits = logits_of(output, key)
    except (TypeError, LookupError) as error:
        raise ValueError(f"--logits: {type(model).__name__} returned {_output_text(output)}: {error}") from error
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"--model: expected logits of at least two classes (B, K), got {describe(logits)}; of one logit z for two "
            "classes name as --model a function whose model returns torch.cat([-z / 2, z / 2], 1), or measure in "
            "Python: evaluate_background_bias(model, loader, task='binary')"
        )
    return int(logits.shape[1])


def _output_text(output: object) -> str:
    """A model's output in words, so that --logits can name a part of it."""
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {', '.join(f'{i}: {describe(x)}' for i, x in enumerate(output))}"
    if isinstance(output, dict):
        return "a dict of " + ", ".join(f"{name}: {describe(x)}" for name, x in output.items())
    return f"a {type(output).__name__}"
