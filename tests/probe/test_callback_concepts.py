from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

pl = pytest.importorskip("pytorch_lightning")

from torch_bgdebias.callbacks import ConceptProbeCallback  # noqa: E402
from torch_bgdebias.concepts import ConceptSamples  # noqa: E402


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def samples(seed):
    g = torch.Generator().manual_seed(seed)
    masks = torch.zeros(6, 1, 8, 8)
    masks[:, :, 2:6, 2:6] = 1
    return ConceptSamples(torch.rand(6, 3, 8, 8, generator=g) + masks, masks, torch.arange(6) % 2)


def test_logs_and_leaves_the_training_as_it_is(tmp_path):
    def weights(*callbacks):
        pl.seed_everything(0, verbose=False)
        module = Module()
        data = torch.utils.data.TensorDataset(samples(2).images, samples(2).concepts)
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, callbacks=list(callbacks),
        )  # fmt: skip
        loader = torch.utils.data.DataLoader(data, batch_size=3)
        trainer.fit(module, loader, loader)
        assert not any(m._forward_hooks for m in module.modules())
        return torch.cat([p.detach().flatten() for p in module.parameters()]), trainer.callback_metrics

    callback = ConceptProbeCallback(
        (samples(0), samples(1)), categories={"white": lambda i, m: i * m + 1 - m}, layers=["features.1"], size=8
    )
    with_it, logged = weights(callback)
    without, _ = weights()
    assert torch.equal(with_it, without)
    values = callback.result.values("features.1")
    for place, name in enumerate(("original", "white")):
        assert float(logged[f"concepts/features.1/{name}"]) == pytest.approx(np.nanmean(values[:, place]), abs=1e-6)


def test_samples_one_by_one_go_on_working():
    fit, test = samples(0), samples(1)
    new = ConceptProbeCallback((fit, test), size=8)
    for call in (
        lambda: ConceptProbeCallback(fit, test, size=8),
        lambda: ConceptProbeCallback(fit=fit, test=test, size=8),
    ):
        with pytest.warns(DeprecationWarning, match=r"is now ConceptProbeCallback\(\(fit, test\)\)"):
            old = call()
        assert (old.samples, old.settings, old.state_key) == (new.samples, new.settings, new.state_key)
    with pytest.raises(TypeError, match="samples: expected two ConceptSamples, to fit and to test"):
        ConceptProbeCallback((fit, 3))


def test_settings_are_checked_when_it_is_made():
    with pytest.raises(ValueError, match="size: expected a whole number of at least 1, got 0"):
        ConceptProbeCallback((samples(0), samples(1)), size=0)
    with pytest.raises(ValueError, match="every_n_epochs"):
        ConceptProbeCallback((samples(0), samples(1)), every_n_epochs=0)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
def test_other_precisions_measure_about_the_same(precision):
    def fitted(**options):
        pl.seed_everything(0, verbose=False)
        module = Module()
        module.train_dataloader = module.val_dataloader = lambda: torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(samples(2).images, samples(2).concepts), batch_size=3
        )
        callback = ConceptProbeCallback((samples(0), samples(1)), layers=["features.1"], size=8)
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[callback], **options,
        )  # fmt: skip
        trainer.validate(module, verbose=False)
        return callback.result.values("features.1")

    np.testing.assert_allclose(fitted(precision=precision), fitted(), atol=0.1)


def test_a_forward_of_another_kind_is_told_what_to_pass():
    class OfBatches(Module):
        def forward(self, batch):
            return super().forward(batch["image"])

        def training_step(self, batch, _):
            return F.cross_entropy(self({"image": batch[0]}), batch[1])

        validation_step = training_step

    class Without(OfBatches):
        forward = pl.LightningModule.forward

        def training_step(self, batch, _):
            return F.cross_entropy(self.head(self.features(batch[0]).mean((2, 3))), batch[1])

        validation_step = training_step

    def fit(module, **options):
        callback = ConceptProbeCallback((samples(0), samples(1)), layers=["features.1"], size=8, epochs=1, **options)
        data = torch.utils.data.TensorDataset(samples(2).images, samples(2).concepts)
        loader = torch.utils.data.DataLoader(data, batch_size=3)
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=callback,
        )  # fmt: skip
        trainer.fit(module, loader, loader)
        return callback.result

    with pytest.raises(IndexError) as caught:
        fit(OfBatches())
    assert "ConceptProbeCallback calls OfBatches(image); where its forward takes" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match=r"Without has no forward\(image\): pass ConceptProbeCallback\(forward="):
        fit(Without())
    for module, forward in (
        (OfBatches(), lambda module, image: module({"image": image})),
        (Without(), lambda module, image: module.features(image)),
    ):
        assert fit(module, forward=forward) is not None
