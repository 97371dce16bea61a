"""A small classifier and the plain training loop of the demo, run once for each method.

A method is a row of `METHODS`: how a batch becomes a loss. Everything else is the same for all of them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.clad import CLADLoss
from torch_bgdebias.cli.progress import progress
from torch_bgdebias.seeds import derive_seed
from torch_bgdebias.swap import BackgroundSwap

__all__ = ["METHODS", "Batch", "Method", "SmallCNN", "Trained", "TrainingSet", "predict", "train"]


class Batch(NamedTuple):
    """image (B, 3, H, W) float in [0, 1], label (B,), mask (B, 1, H, W) in [0, 1]."""

    image: Tensor
    label: Tensor
    mask: Tensor


class TrainingSet(NamedTuple):
    """What a method may use: composites with their masks as uint8, and a bank of the training backgrounds."""

    images: Tensor
    labels: Tensor
    masks: Tensor
    bank: BackgroundBank
    num_classes: int


class SmallCNN(nn.Module):
    """Three or four convolutions, global average pooling, a linear head; takes images in [0, 1] of at least 16 pixels.

    Args:
        num_classes: K.
        size: side of the images; above 40 one more convolution with stride 2 comes first.
    """

    def __init__(self, num_classes: int, size: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        if size > 40:
            layers += [*_convolution(channels, 24, stride=2)]
            channels = 24
        for width in (16, 32, 64):
            layers += [*_convolution(channels, width, pool=True)]
            channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, num_classes)

    def embed(self, image: Tensor) -> Tensor:
        """(B, 64): what enters the last linear layer."""
        embedding: Tensor = self.features((image - 0.5) / 0.25)
        return embedding

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.head(self.embed(image))
        return logits


#: a batch and the generator of the run's random numbers -> loss
Objective: TypeAlias = Callable[[Batch, torch.Generator], Tensor]


@dataclass(frozen=True)
class Method:
    """One row of the demo's table of methods.

    Attributes:
        label: its name in the report.
        objective: given the model, the training set and lambda, what turns a batch into a loss.
    """

    label: str
    objective: Callable[[SmallCNN, TrainingSet, float], Objective]


def _baseline(model: SmallCNN, data: TrainingSet, clad_weight: float) -> Objective:
    """Cross-entropy on the images as they are."""
    return lambda batch, _: cross_entropy(model(batch.image), batch.label)


def _swap(model: SmallCNN, data: TrainingSet, clad_weight: float) -> Objective:
    """Cross-entropy on images whose background was exchanged for a random one of the training scenes."""
    swap = BackgroundSwap(data.bank)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        image = swap(batch.image, mask=batch.mask, generator=generator)
        return cross_entropy(model(image), batch.label)

    return loss


def _clad(plus: bool, model: SmallCNN, data: TrainingSet, clad_weight: float) -> Objective:
    """CLAD: cross-entropy, and a contrast of each image with itself elsewhere and with others on its own background.

    CLAD+ adds the cross-entropy of the swapped image. arXiv 2210.02748.
    """
    swap = BackgroundSwap(data.bank)
    contrast = CLADLoss(data.num_classes)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        swapped = swap(batch.image, mask=batch.mask, generator=generator)
        anchor, positive = model.embed(torch.cat([batch.image, swapped])).chunk(2)
        total = cross_entropy(model.head(anchor), batch.label)
        if plus:
            total = total + cross_entropy(model.head(positive), batch.label)
        added: Tensor = contrast(anchor, positive, batch.label, swap.drawn["background_label"])
        return total + clad_weight * added

    return loss


#: command line name -> method; the first one is what the others are compared with
METHODS: dict[str, Method] = {
    "baseline": Method("baseline", _baseline),
    "swap": Method("background swap", _swap),
    "clad": Method("CLAD", partial(_clad, False)),
    "clad+": Method("CLAD+", partial(_clad, True)),
}


@dataclass
class Trained:
    """A trained model and how it came about.

    Attributes:
        model: in evaluation mode.
        curves: quantity -> one value an epoch, ``loss`` among them.
        seconds: of training, without the measurements between epochs.
    """

    model: SmallCNN
    curves: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0


def train(
    method: str,
    data: TrainingSet,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    clad_weight: float = 1.0,
    after_epoch: Callable[[SmallCNN], dict[str, float]] | None = None,
    stage: str = "",
) -> Trained:
    """Train a `SmallCNN` from scratch with one of `METHODS` (AdamW, one-cycle learning rate).

    Args:
        method: key of ``METHODS``.
        data: composites and bank.
        epochs: passes over the composites.
        seed: of the initial weights, the order of the samples and the method's random draws; the global generator
            is left as it was.
        batch_size: samples a step; a last batch of a single sample is left out (batch norm).
        learning_rate: the peak of the cycle.
        clad_weight: lambda, the weight of CLAD's loss in the methods that have it.
        after_epoch: measures the model (in evaluation mode) and returns values for the curves.
        stage: how many methods this one is of, for the bar.
    """
    row = METHODS[method]
    generator = torch.Generator().manual_seed(derive_seed(seed, "batches"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        model = SmallCNN(data.num_classes, data.images.shape[-1]).to(memory_format=torch.channels_last)
    objective = row.objective(model, data, clad_weight)
    steps = _steps(len(data.images), batch_size)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(2, epochs * steps))
    trained = Trained(model)
    all_batches = (batch for _ in range(epochs) for batch in _batches(data, batch_size, generator))
    batches = iter(progress(all_batches, total=epochs * steps, label=f"{stage} training {row.label}".strip()))
    for _ in range(epochs):
        started = time.perf_counter()
        model.train()
        total = torch.zeros(())
        for batch in itertools.islice(batches, steps):
            loss = objective(batch, generator)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.detach()
        trained.seconds += time.perf_counter() - started
        model.eval()
        measured = {"loss": float(total) / steps, **(after_epoch(model) if after_epoch else {})}
        for name, value in measured.items():
            trained.curves.setdefault(name, []).append(value)
    return trained


def predict(model: SmallCNN, images: Tensor) -> Tensor:
    """Logits of float images (N, 3, S, S), a few hundred at a time."""
    with torch.inference_mode():
        return torch.cat([model(part) for part in torch.split(images, 500)])


def _convolution(channels: int, width: int, stride: int = 1, *, pool: bool = False) -> tuple[nn.Module, ...]:
    """Pooled before what is done to every value: a quarter of the work, and a ReLU lets the largest through anyway."""
    pooling = [nn.MaxPool2d(2)] if pool else []
    return nn.Conv2d(channels, width, 3, stride, 1, bias=False), *pooling, nn.BatchNorm2d(width), nn.ReLU()


def _steps(samples: int, batch_size: int) -> int:
    full, remainder = divmod(samples, batch_size)
    return full + (remainder > 1)


def _batches(data: TrainingSet, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    order = torch.randperm(len(data.images), generator=generator)
    for index in torch.split(order, batch_size)[: _steps(len(order), batch_size)]:
        image = data.images[index].to(memory_format=torch.channels_last).float() / 255
        yield Batch(image, data.labels[index], data.masks[index].float() / 255)
