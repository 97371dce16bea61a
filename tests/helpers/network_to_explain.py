"""LightningModules that know nothing of ISNet, and the same training as a plain loop."""

from __future__ import annotations

import pytorch_lightning as pl
import small_training
import torch
from pytorch_lightning.callbacks import Callback
from small_training import Module, tensors
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.callbacks import ISNetCallback
from torch_bgdebias.isnet import ISNet, ISNetLoss


class PlainHeatmaps(ISNetCallback):
    """Without dimmed backgrounds and grown masks, unless a test asks for them: the images here are small."""

    def __init__(self, variant="selective", spec=None, *, loss=None, dimming=0.0, balance=None, **options) -> None:
        plain = ISNetLoss(mask_dilation=0, form="paper" if options.get("calibrate") else None)
        super().__init__(variant, spec, loss=loss or plain, dimming=dimming, balance=balance, **options)


class Frozen(Module):
    """Batch norm with the statistics of some images, kept in evaluation mode, as when a pretrained model is tuned."""

    def __init__(self) -> None:
        super().__init__()
        self.net[1].momentum = None
        with torch.no_grad():
            self.net(torch.stack([row[0] for row in data(64)]))
        self.train()

    def train(self, mode: bool = True) -> Module:
        super().train(mode)
        self.net[1].eval()
        return self


class Inner(Module):
    """Calls its submodule, and its forward is something else."""

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image).softmax(1)

    def training_step(self, batch, batch_idx):
        return {"loss": F.cross_entropy(self.net(batch[0]), batch[1]), "extra": 1}


def data(count: int = 16) -> TensorDataset:
    return TensorDataset(*tensors(count))


def loader(count: int = 16, batch_size: int = 8, **options) -> DataLoader:
    return DataLoader(data(count), batch_size=batch_size, **options)


def trainer(*callbacks: Callback, **options) -> pl.Trainer:
    return small_training.trainer(list(callbacks), **options)


def by_hand(
    module: Module,
    *,
    weight=0.7,
    epochs=2,
    loss=None,
    isnet=None,
    batches=None,
    accumulate=1,
    classify=F.cross_entropy,
    **options,
):
    """The same training in a plain loop."""
    isnet = isnet or ISNet(module.net, **{"dual_target": "sum"} | options)
    loss = loss or ISNetLoss(mask_dilation=0)
    optimizer = module.configure_optimizers()
    module.train()
    for epoch in range(epochs):
        for index, (image, label, mask) in enumerate(batches or loader()):
            explained = isnet.explain(image, create_graph=True)
            p = weight(epoch) if callable(weight) else weight
            total = (1 - p) * classify(explained.logits, label)
            total = total + p * loss(explained.relevance, mask, explained.hidden)
            (total / accumulate).backward()
            if (index + 1) % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
    return module


def assert_same(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], msg=lambda text, n=name: f"{n}: {text}", **tolerance)


def assert_differ(one: nn.Module, other: nn.Module) -> None:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in pairs)


def assert_moved_alike(one: nn.Module, other: nn.Module) -> None:
    """Low precision: a step moves the parameters in about the same direction."""
    start = nn.utils.parameters_to_vector(Module().parameters())
    first, second = (nn.utils.parameters_to_vector(m.parameters()) - start for m in (one, other))
    assert F.cosine_similarity(first, second, dim=0) > 0.97
