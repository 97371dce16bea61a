"""``ISNetCallback(validate=...)``: what it logs, against explanations by hand; training stays as it is."""

from __future__ import annotations

import pytest
import torch
from network_to_explain import Inner, PlainHeatmaps, assert_same, data, loader, trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from small_training import NAMED, Module
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.isnet import ISNet, ISNetLoss
from torch_bgdebias.isnet.settings import ISNetSettings
from torch_bgdebias.isnet.shares import foreground_share, pixel_ratio

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")

WHAT = ("heatmap_loss", "background", "foreground", "foreground_share", "pixel_ratio", "loss")


class Validated(Module):
    """Has a validation step, of one loader or several."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("seen", float(len(batch[0])), on_epoch=True, add_dataloader_idx=True)
        return F.cross_entropy(self(batch[0]), batch[1])


class Normalising(Validated):
    """The network gets other numbers than the batch holds."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net((batch[0] - 0.5) / 0.2), batch[1])

    def validation_step(self, batch, batch_idx):
        return F.cross_entropy(self.net((batch[0] - 0.5) / 0.2), batch[1])


def by_hand(net, rows, weight=0.6, prepare=lambda x: x):
    """The same figures over these rows at once, in evaluation mode."""
    image, label, mask = (torch.stack([data()[i][part] for i in rows]) for part in range(3))
    net.eval()
    explained = ISNet(net).explain(prepare(image))
    terms = ISNetLoss(mask_dilation=0).terms(explained.relevance, mask)
    entropy = F.cross_entropy(explained.logits, label)
    return {
        "heatmap_loss": terms.loss.mean(),
        "background": terms.background.mean(),
        "foreground": terms.foreground.mean(),
        "foreground_share": foreground_share(explained.relevance, mask).nanmean(),
        "pixel_ratio": pixel_ratio(explained.relevance, mask).nanmean(),
        "loss": (1 - weight) * entropy + weight * terms.loss.mean(),
    }


class Emptying(Validated):
    """Takes what it needs out of the batch."""

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch.pop("image")), batch.pop("label"))

    validation_step = training_step


def test_a_step_may_take_things_out_of_its_batch():
    rows = [dict(zip(("image", "label", "mask"), data()[i], strict=True)) for i in range(3)]
    run = trainer(PlainHeatmaps(weight=0.0, spec=NAMED, validate=True), max_epochs=1)
    module = Emptying()
    run.fit(module, DataLoader(rows, batch_size=3), DataLoader(rows, batch_size=3))
    expected = by_hand(module.net, range(3), weight=0.0)
    for name in WHAT:
        torch.testing.assert_close(run.callback_metrics[f"isnet/val_{name}"], expected[name], rtol=1e-4, atol=1e-6)


def part(*rows: int, batch_size: int = 3) -> DataLoader:
    return DataLoader(Subset(data(), rows), batch_size=batch_size)


def logged(run) -> dict[str, float]:
    return {name: float(value) for name, value in run.callback_metrics.items() if "/val_" in name}


@pytest.mark.parametrize(("kind", "prepare"), [(Validated, lambda x: x), (Normalising, lambda x: (x - 0.5) / 0.2)])
def test_what_is_logged_is_what_a_loop_measures(kind, prepare):
    module, run = kind(), trainer(PlainHeatmaps(validate=True, weight=0.6, network="net"))
    run.fit(module, loader(), part(*range(7)))
    expected = by_hand(module.net, range(7), prepare=prepare)
    assert set(logged(run)) == {f"isnet/val_{name}" for name in WHAT}
    for name in WHAT:
        assert logged(run)[f"isnet/val_{name}"] == pytest.approx(float(expected[name]), rel=1e-4), name


def test_training_and_the_module_are_as_without_it():
    with_it, without = Validated(), Validated()
    trainer(PlainHeatmaps("dual", validate=True)).fit(with_it, loader(), part(*range(5)))
    trainer(PlainHeatmaps("dual")).fit(without, loader(), part(*range(5)))
    assert_same(with_it, without)
    assert "validation_step" not in vars(with_it)
    assert all(p.grad is None or p.grad.isfinite().all() for p in with_it.parameters())


@pytest.mark.parametrize(
    ("loaders", "validate", "names"),
    [
        ({"iid": part(0, 1, 2, 3), "ood": part(4, 5)}, True, ["iid", "ood"]),
        ([part(0, 1, 2, 3), part(4, 5)], ("iid", "ood"), ["iid", "ood"]),
        ([part(0, 1, 2, 3), part(4, 5)], True, ["0", "1"]),
    ],
)
def test_several_loaders_are_named(loaders, validate, names):
    module, run = Validated(), trainer(PlainHeatmaps(validate=validate, weight=0.6))
    run.fit(module, loader(), loaders)
    assert set(logged(run)) == {f"isnet/val_{what}/{name}" for what in WHAT for name in names}
    for name, rows in zip(names, (range(4), (4, 5)), strict=True):
        expected = by_hand(module.net, rows)
        assert logged(run)[f"isnet/val_pixel_ratio/{name}"] == pytest.approx(float(expected["pixel_ratio"]), rel=1e-4)


def test_checkpoints_and_early_stopping_go_by_it(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="isnet/val_loss")
    stop = EarlyStopping("isnet/val_pixel_ratio", mode="max", min_delta=10.0, patience=1)
    module = Validated()
    run = trainer(PlainHeatmaps(validate=True), stop, best, max_epochs=5, enable_checkpointing=True)
    run.fit(module, loader(), part(*range(6)))
    assert run.current_epoch == 2, "nothing gets better by 10, so it stops after the second epoch"
    assert float(best.best_model_score) >= 0


def test_a_random_choice_is_the_same_in_every_epoch_and_in_validate():
    module, callback = Validated(), PlainHeatmaps("stochastic", validate=True, weight=0.6)
    run = trainer(callback)
    run.fit(module, loader(), part(*range(6)))
    last = logged(run)
    again = trainer(callback)
    again.validate(module, part(*range(6)), verbose=False)
    for name, value in last.items():
        assert logged(again)[name] == pytest.approx(value, rel=1e-5)


def test_images_without_relevance_have_no_share():
    class Blind(Validated):
        def __init__(self) -> None:
            super().__init__()
            with torch.no_grad():
                self.net[-1].weight.zero_()

    run = trainer(PlainHeatmaps(validate=True))
    run.validate(Blind(), part(*range(4)), verbose=False)
    assert "isnet/val_heatmap_loss" in logged(run)
    assert logged(run)["isnet/val_pixel_ratio"] != logged(run)["isnet/val_pixel_ratio"], "NaN"


def test_masks_that_are_hidden_from_the_module_are_there():
    class Pairs(Module):
        def training_step(self, batch, batch_idx):
            image, label = batch
            return F.cross_entropy(self(image), label)

        def validation_step(self, batch, batch_idx):
            image, label = batch
            return F.cross_entropy(self(image), label)

    run = trainer(PlainHeatmaps("selective", BatchSpec(hide_mask=True), validate=True))
    run.fit(Pairs(), loader(), part(*range(4)))
    assert set(logged(run)) == {f"isnet/val_{name}" for name in WHAT}


def test_what_cannot_be_measured_is_refused():
    class Elsewhere(Validated):
        def validation_step(self, batch, batch_idx):
            return batch[0].mean()

    with pytest.raises(RuntimeError, match="validate: validation_step did not call Elsewhere.forward"):
        trainer(PlainHeatmaps(validate=True)).fit(Elsewhere(), loader(), part(0, 1))
    with pytest.raises(ValueError, match="expected 2 names, one a validation loader, got \\['iid'\\]"):
        trainer(PlainHeatmaps(validate=("iid",))).fit(Validated(), loader(), [part(0), part(1)])
    pairs = DataLoader([data()[i][:2] for i in range(4)], batch_size=2)
    with pytest.raises(KeyError, match="batch has no mask at 2"):
        trainer(PlainHeatmaps(validate=True)).fit(Validated(), loader(), pairs)
    with pytest.raises(ValueError, match="or a name for each validation loader"):
        ISNetSettings(validate="iid")
    with pytest.raises(ValueError, match="calibrate and validate take a forward pass of their own"):
        ISNetSettings(network=("a", "b"), validate=True)


def test_a_step_whose_forward_is_something_else_needs_the_network_s_name():
    class Two(Inner):
        def validation_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

    run = trainer(PlainHeatmaps(validate=True, network="net"))
    run.fit(Two(), loader(), part(*range(4)))
    assert set(logged(run)) == {f"isnet/val_{name}" for name in WHAT}


def test_without_a_validation_step_nothing_is_measured():
    run = trainer(PlainHeatmaps(validate=True))
    run.fit(Module(), loader())
    assert logged(run) == {}
