"""A small training for every test that needs one: masked images, a module as somebody else wrote it, a quiet trainer.

Of either Lightning package; and one maker for every callback.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from torch_bgdebias import BatchSpec
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.callbacks import (
    BackgroundBiasProbe,
    BackgroundSwapCallback,
    CLADCallback,
    ConceptProbeCallback,
    ISNetCallback,
)
from torch_bgdebias.concepts import ConceptSamples
from torch_bgdebias.swap import BackgroundSwap

#: those that are there; both in the development environment
PACKAGES = tuple(
    name for name in ("pytorch_lightning", "lightning.pytorch") if importlib.util.find_spec(name.split(".")[0])
)
CLASSES, COUNT, SIDE = 4, 24, 8
#: what a callback's draws need of a module in a run of one process
RANK_0 = SimpleNamespace(global_rank=0, device="cpu")


def package(name: str = PACKAGES[0]) -> Any:
    """The Lightning package itself."""
    return importlib.import_module(name)


def tensors(count: int = COUNT, classes: int = CLASSES) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random images (N, 3, 8, 8), labels (N,), masks (N, 1, 8, 8) with a square in front."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(count, 1, SIDE, SIDE)
    mask[:, :, 2:6, 2:6] = 1
    return torch.rand(count, 3, SIDE, SIDE, generator=generator), torch.arange(count) % classes, mask


class NamedFields(Dataset):
    """The same images as dicts, which also say where a picture was taken (two sites) and several labels an image."""

    def __init__(self, **fields: torch.Tensor) -> None:
        image, label, mask = tensors()
        generator = torch.Generator().manual_seed(2)
        site = torch.randint(2, (COUNT,), generator=generator)
        many = (torch.rand(COUNT, CLASSES, generator=generator) > 0.5).float()
        self.fields = {"image": image, "label": label, "mask": mask, "site": site, "many": many, **fields}

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: values[index] for name, values in self.fields.items()}


#: fields of `NamedFields`
NAMED = BatchSpec(image="image", label="label", mask="mask")


def loader(*columns: Any, batch_size: int = 8, **options: Any) -> DataLoader:
    """Batches of a data set or of columns, by default (image, label, mask)."""
    given = columns[0] if len(columns) == 1 and not isinstance(columns[0], torch.Tensor) else None
    return DataLoader(given or TensorDataset(*(columns or tensors())), batch_size=batch_size, **options)


def network(classes: int = CLASSES, norm: bool = True) -> nn.Sequential:
    """Layers "0" to "5" with weights that are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        between = [nn.BatchNorm2d(6)] if norm else []
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), *between, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(6 * SIDE * SIDE // 4, classes),
        )  # fmt: skip


class _Written:
    """What a user would write; ``losses`` are those of its step, ``totals`` what the optimiser was given."""

    def __init__(self, net=None, *, norm=True, image=0, label=1, lr=0.05):
        super().__init__()
        self.net = network(norm=norm) if net is None else net
        self.image, self.label, self.lr, self.batch_size = image, label, lr, 4
        self.losses, self.totals = [], []

    def forward(self, image):
        return self.net(image)

    def classify(self, image):
        return self(image)

    def criterion(self, logits, target):
        return F.cross_entropy(logits, target)

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self.classify(batch[self.image]), batch[self.label])
        self.losses.append(loss.detach().clone())
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if outputs:  # nothing where the module optimises by hand
            self.totals.append(outputs["loss"].detach().clone())

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.criterion(self.classify(batch[self.image]), batch[self.label]))

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


#: a class at the top of a file, for processes that start with a pickled module
Module: Any = type("Module", (_Written, package().LightningModule), {"__module__": __name__})


class CallsItsNetwork(Module):
    """Has no forward of its own."""

    forward = package().LightningModule.forward

    def classify(self, image):
        return self.net(image)


def theirs(package: str = PACKAGES[0], **replaced: Callable[..., Any]) -> Any:
    """A module of a package; ``replaced`` are methods written otherwise."""
    base = (
        Module
        if package == PACKAGES[0]
        else type("Module", (_Written, importlib.import_module(package).LightningModule), {})
    )
    return type("Theirs", (base,), replaced)()


def trainer(callbacks: Any = None, package: str = PACKAGES[0], **options: Any) -> Any:
    """A quiet trainer on the CPU for two epochs."""
    settings = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False, **options}
    return importlib.import_module(package).Trainer(
        callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False, **settings
    )


def fit(
    module: Any,
    *callbacks: Any,
    train: DataLoader | None = None,
    val: DataLoader | None = None,
    ckpt: Any = None,
    package: str = PACKAGES[0],
    **options: Any,
) -> Any:
    """Train a module for two epochs on `loader`'s batches; the trainer."""
    run = trainer(list(callbacks), package, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        run.fit(module, loader() if train is None else train, val, ckpt_path=ckpt, **unpickled(run, ckpt))
    return run


def unpickled(run: Any, ckpt: Any) -> dict[str, bool]:
    """What lets a trainer read a checkpoint that holds more than weights; lightning 2.5 always does."""
    known = "weights_only" in inspect.signature(run.fit).parameters
    return {"weights_only": False} if ckpt and known else {}


def weights(module: nn.Module) -> torch.Tensor:
    """All parameters as one vector."""
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def samples() -> ConceptSamples:
    """For the concept probe."""
    image, label, mask = tensors()
    return ConceptSamples(image, mask, label)


def scenes() -> BackgroundBank:
    """Backgrounds of two categories."""
    images = torch.randint(256, (12, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    return BackgroundBank(images, torch.arange(12) % 2)


def make_swap(spec: BatchSpec | None = None, **options: Any) -> BackgroundSwapCallback:
    return BackgroundSwapCallback(BackgroundSwap("batch", "voronoi", p=0.7), spec, **options)


def make_clad(spec: BatchSpec | None = None, **options: Any) -> CLADCallback:
    return CLADCallback(BackgroundSwap("batch", "voronoi"), spec=spec, num_negatives=4, plus=True, **options)


def make_isnet(spec: BatchSpec | None = None, **options: Any) -> ISNetCallback:
    return ISNetCallback("stochastic", spec=spec, **options)


def make_probe(spec: BatchSpec | None = None, **options: Any) -> BackgroundBiasProbe:
    return BackgroundBiasProbe(figures=False, spec=spec, **options)


def make_concepts(spec: BatchSpec | None = None, **options: Any) -> ConceptProbeCallback:
    return ConceptProbeCallback((samples(), samples()), spec, layers=["net.0"], epochs=1, **options)


#: callbacks that change the training
TRAINING = {"swap": make_swap, "clad": make_clad, "isnet": make_isnet}
#: callbacks that only read
READING = {"probe": make_probe, "concepts": make_concepts}
CALLBACKS = {**TRAINING, **READING}
#: the same with settings that have hooks, draws or states of their own
VARIED: dict[str, Callable[..., Any]] = {
    **CALLBACKS,
    "swap from a bank": lambda: BackgroundSwapCallback(BackgroundSwap(scenes(), p=0.7)),
    "clad jointly": lambda: make_clad(joint=True),
    "isnet, selective, of two layers": lambda: ISNetCallback(deep_supervision=["net.0"]),
    "isnet, dual": lambda: ISNetCallback("dual"),
    "isnet on a part": lambda: ISNetCallback(fraction=0.5),
    "isnet, calibrated": lambda: ISNetCallback(calibrate=2, deep_supervision=["net.0"]),
}
