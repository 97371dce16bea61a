"""Modules in the manner of public ones, with all callbacks.

``PYTHONPATH=. python tests/callbacks/clients.py`` prints the table.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.callbacks.client_modules import (
    CLASSES,
    SIDE,
    CameraTraps,
    FuseMedML,
    GeoTask,
    HydraTemplate,
    KorniaExample,
    LightlyFinetune,
    SoloLearn,
    TransferLearning,
    Zamba,
    backbone,
)
from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import (
    BackgroundBiasProbe,
    BackgroundSwapCallback,
    CLADCallback,
    ConceptProbeCallback,
    ISNetCallback,
)
from torch_bgdebias.concepts import ConceptSamples
from torch_bgdebias.swap import BackgroundSwap


class Client(NamedTuple):
    """A module, whether its batches are dicts and its labels binary, and what callbacks have to be told of it."""

    make: Callable[[], pl.LightningModule]
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    keys: bool = False
    classes: int = CLASSES


def _hydra() -> HydraTemplate:
    return HydraTemplate(nn.Sequential(backbone(), nn.Linear(8, CLASSES)), functools.partial(torch.optim.Adam, lr=1e-3))


def _net(module: pl.LightningModule, image: torch.Tensor) -> torch.Tensor:
    return module.net(image)


def _parts(module: pl.LightningModule, image: torch.Tensor) -> torch.Tensor:
    return module.net["classifier"](module.net["feature"](image))


def _body(module: pl.LightningModule, image: torch.Tensor) -> torch.Tensor:
    return module.body(image)


CLIENTS = {
    "lightning-hydra-template": Client(_hydra),
    "solo-learn, linear": Client(SoloLearn),
    "solo-learn, fine-tuned": Client(lambda: SoloLearn(finetune=True)),
    "torchgeo": Client(GeoTask, keys=True),
    "lightly": Client(LightlyFinetune),
    "Lightning, transfer learning": Client(TransferLearning, {"probe": {"task": "binary"}}, classes=2),
    "Lightning, kornia": Client(
        KorniaExample, {"isnet": {"network": "net"}, "probe": {"forward": _net}, "concepts": {"forward": _net}}
    ),
    "CameraTraps": Client(
        CameraTraps,
        {
            "clad": {"forward": _parts},
            "isnet": {"network": ("net.feature", "net.classifier")},
            "probe": {"forward": _parts},
            "concepts": {"forward": _parts},
        },
    ),
    "zamba": Client(Zamba),
    "FuseMedML": Client(
        FuseMedML,
        {"isnet": {"network": "body"}, "probe": {"forward": _body}, "concepts": {"forward": _body}},
        keys=True,
    ),
}


def tensors(classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(24, 1, SIDE, SIDE)
    mask[:, :, 4:11, 4:11] = 1
    return torch.rand(24, 3, SIDE, SIDE, generator=generator), torch.arange(24) % classes, mask


def loader(client: Client) -> DataLoader:
    rows = list(zip(*tensors(client.classes), strict=True))
    if client.keys:
        rows = [dict(zip(("image", "label", "mask"), row, strict=True)) for row in rows]
    return DataLoader(rows, batch_size=8)


def samples() -> ConceptSamples:
    image, label, mask = tensors(CLASSES)
    return ConceptSamples(image, mask, label)


CALLBACKS: dict[str, Callable[..., pl.Callback]] = {
    "swap": lambda spec, **options: BackgroundSwapCallback(BackgroundSwap(), spec, **options),
    "clad": lambda spec, **options: CLADCallback(BackgroundSwap(), spec, plus=True, **options),
    "isnet": lambda spec, **options: ISNetCallback("selective", spec, **options),
    "probe": lambda spec, **options: BackgroundBiasProbe(spec=spec, figures=False, **options),
    "concepts": lambda spec, **options: ConceptProbeCallback((samples(), samples()), epochs=1, **options),
}


def fit(client: Client, name: str) -> pl.Trainer:
    """Train a client for an epoch with a callback; raises whatever comes."""
    spec = BatchSpec(*(("image", "label", "mask") if client.keys else (0, 1, 2)), hide_mask=not client.keys)
    callback = CALLBACKS[name](spec, **client.options.get(name, {}))
    hidden = [CALLBACKS["swap"](spec)] if name == "concepts" and not client.keys else []  # it has no batches of its own
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*hidden, callback],
    )  # fmt: skip
    module = client.make()
    trainer.fit(module, loader(client), loader(client))
    return trainer


def needs(client: Client, name: str) -> str:
    """``works``, with what the callback has to be told of the module."""
    options = client.options.get(name, {})
    return "works" + (f" with `{', '.join(options)}`" if options else "")


def outcome(client: Client, name: str) -> str:
    """What it needs, or ``refuses``."""
    try:
        fit(client, name)
    except Exception:  # whatever it is: `fit` shows it
        return "refuses"
    return needs(client, name)


def table() -> str:
    """Clients x callbacks as Markdown."""
    lines = [f"| module in the manner of | {' | '.join(CALLBACKS)} |", "| --- " * (len(CALLBACKS) + 1) + "|"]
    for title, client in CLIENTS.items():
        lines.append(f"| {title} | {' | '.join(outcome(client, name) for name in CALLBACKS)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(table())
