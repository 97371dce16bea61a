"""``ISNetCallback`` under the trainer's own features: accumulation, clipping, precision, resuming, processes."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from network_to_explain import (
    Frozen,
    PlainHeatmaps,
    assert_differ,
    assert_moved_alike,
    assert_same,
    by_hand,
    data,
    loader,
    trainer,
)
from pytorch_lightning.callbacks import ModelCheckpoint
from small_training import Module
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.isnet import ISNet, ISNetLoss, calibrate_relevance_range

pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


def test_gradient_accumulation_and_clipping():
    module = Module(norm=False)
    trainer(PlainHeatmaps(), accumulate_grad_batches=2).fit(module, loader(32))
    expected = by_hand(Module(norm=False), batches=loader(32), accumulate=2)
    assert_same(module, expected, rtol=1e-4, atol=1e-6)
    clipped = Module(norm=False, lr=1.0)
    before = copy.deepcopy(clipped)
    trainer(PlainHeatmaps(), gradient_clip_val=1e-3, max_epochs=1).fit(clipped, loader(8))
    first, second = (nn.utils.parameters_to_vector(m.parameters()).detach() for m in (clipped, before))
    assert (first - second).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_mixed_precision_keeps_relevance_in_float32(fraction):
    class Recording(ISNetLoss):
        def terms(self, relevance, mask, hidden=None):
            dtypes.add(relevance.dtype)
            return super().terms(relevance, mask, hidden)

    dtypes: set[torch.dtype] = set()
    module = Module()
    run = trainer(
        PlainHeatmaps(loss=Recording(mask_dilation=0), fraction=fraction), precision="bf16-mixed", max_epochs=1
    )
    run.fit(module, loader(8))
    assert dtypes == {torch.float32}
    assert all(torch.isfinite(p).all() for p in module.parameters())
    if fraction == 1.0:
        assert_moved_alike(module, by_hand(Module(), epochs=1, batches=loader(8)))
    assert_differ(module, Module())


@pytest.mark.parametrize("averaging_first", [False, True])
def test_averaged_weights_are_those_of_the_loop(averaging_first):
    class Averaged(Module):
        def configure_optimizers(self):
            self.mean = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
            optimizer = super().configure_optimizers()
            optimizer.register_step_post_hook(lambda *_: self.mean.update_parameters(self.net))
            return optimizer

    module, averaging = Module(), pl.callbacks.EMAWeightAveraging(decay=0.9)
    callbacks = [averaging, PlainHeatmaps()] if averaging_first else [PlainHeatmaps(), averaging]
    trainer(*callbacks).fit(module, loader(32))
    expected = by_hand(Averaged(), batches=loader(32))
    assert_same(module.net, expected.mean.module, rtol=1e-4, atol=1e-6)
    assert_differ(module.net, expected.net)


def test_half_precision_inside_the_user_s_step():
    class Half(Module):
        def training_step(self, batch, batch_idx):
            with torch.autocast("cpu", torch.float16):
                return F.cross_entropy(self(batch[0]).float(), batch[1])

    module = Half()
    trainer(PlainHeatmaps(), max_epochs=1).fit(module, loader(8))
    assert_moved_alike(module, by_hand(Module(), epochs=1, batches=loader(8)))


def test_calibrates_once_and_keeps_it_in_the_checkpoint(tmp_path):
    callback = PlainHeatmaps(calibrate=2, network="net", deep_supervision=["0"], weight=0.5)
    module = Module()
    before = copy.deepcopy(module)
    keep = ModelCheckpoint(tmp_path, save_last=True)
    torch.manual_seed(3)
    trainer(callback, keep, enable_checkpointing=True).fit(module, loader(32, shuffle=True))
    isnet = ISNet(before.net, deep_supervision=["0"])
    assert callback.loss.relevance_range != (1.0, 25.0)
    whole = calibrate_relevance_range(isnet, loader(32))
    assert callback.loss.relevance_range[0] == pytest.approx(whole[0], rel=0.5)  # half of the images were measured
    assert set(callback.loss.hidden_ranges) == {"0"}
    exact = PlainHeatmaps(calibrate=4)
    trainer(exact, max_epochs=1).fit(copy.deepcopy(before), loader(32))
    assert exact.loss.relevance_range == pytest.approx(whole)
    fresh = PlainHeatmaps(calibrate=2, network="net", deep_supervision=["0"], weight=0.5)
    ranges = dict(callback.loss.hidden_ranges), callback.loss.relevance_range
    again = trainer(fresh, enable_checkpointing=True, max_epochs=3, default_root_dir=tmp_path)
    again.fit(Module(), loader(32, shuffle=True), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=False)
    assert (fresh.loss.hidden_ranges, fresh.loss.relevance_range) == ranges


def test_calibration_does_not_change_the_order_of_the_batches():
    def fit(**options) -> list[float]:
        class Recording(Module):
            def training_step(self, batch, batch_idx):
                seen.append(float(batch[0].sum()))
                return super().training_step(batch, batch_idx)

        seen: list[float] = []
        torch.manual_seed(7)
        trainer(PlainHeatmaps(**options)).fit(Recording(), loader(32, shuffle=True))
        return seen

    assert fit(calibrate=3) == fit()


def test_a_part_of_the_batch_is_taken_of_what_the_step_s_own_call_got():
    """Not of a call without gradients before it, nor of images that the network has changed in place."""

    class Changing(Module):
        def forward(self, image: Tensor) -> Tensor:
            return self.net(image.sub_(0.5).div_(0.25))

        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                self(batch[0][:3].clone())
            return F.cross_entropy(self(batch[0].clone()), batch[1])

    seen: list[Tensor] = []

    class Recording(PlainHeatmaps):
        def _prepare(self, module) -> None:
            super()._prepare(module)
            explain = self._isnet.explain
            self._isnet.explain = lambda image, *a, **k: (seen.append(image.clone()), explain(image, *a, **k))[1]

    trainer(Recording(fraction=0.5), max_epochs=1).fit(Changing(), loader(8))
    rows = [row.tolist() for row in seen[0].flatten(1)]
    assert len(rows) == 4
    assert all(row in [image.flatten().tolist() for image, *_ in data(8)] for row in rows)


def test_the_box_rule_is_taken_where_the_normalisation_is_known():
    module = Module()
    options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2)}
    trainer(PlainHeatmaps(**options), max_epochs=1).fit(module, loader())
    expected = by_hand(Module(), epochs=1, input_rule="zbox", **options)
    assert_same(module, expected, rtol=1e-4, atol=1e-6)
    plain = Module()
    trainer(PlainHeatmaps(input_rule="gradient", **options), max_epochs=1).fit(plain, loader())
    assert_same(plain, by_hand(Module(), epochs=1), rtol=1e-4, atol=1e-6)


class Prepared(Module):
    """Images arrive in other units, which the module's own hook converts."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        image, label, mask = batch
        return image / 255, label, mask


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true", "bf16-mixed"])
def test_calibration_sees_the_batches_of_the_training(precision):
    image, label, mask = data().tensors
    batches = DataLoader(TensorDataset((image * 255).round(), label, mask), batch_size=8)
    callback = PlainHeatmaps(calibrate=2)
    trainer(callback, precision=precision, max_epochs=1).fit(Prepared(), batches)
    rounded = DataLoader(TensorDataset((image * 255).round() / 255, label, mask), batch_size=8)
    expected = calibrate_relevance_range(ISNet(Module().net), rounded)
    assert callback.loss.relevance_range == pytest.approx(expected, rel=0.02 if "bf16" in precision else 1e-5)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("options", [{}, {"variant": "dual"}, {"mean": (0.5,), "std": (0.5,)}, {"fraction": 0.5}])
def test_true_precisions_train(precision, options):
    module = Module()
    trainer(PlainHeatmaps(**options), precision=precision, max_epochs=1).fit(module, loader(8))
    assert all(torch.isfinite(p).all() for p in module.parameters())
    if options:
        return
    expected = by_hand(Module(), epochs=1, batches=loader(8))
    assert_moved_alike(module.float(), expected)
    assert_differ(module, Module())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "module"),
    [("original", partial(Module, norm=False)), ("original", Frozen), ("selective", Frozen), ("dual", Frozen)],
    ids=["without batch norm", "frozen", "selective", "dual"],
)
def test_two_processes_equal_one(variant, module):
    """The stochastic variant, and contrasts, draw for each process and so differ on purpose."""
    one = module()
    trainer(PlainHeatmaps(variant, calibrate=1, dual_target="sum")).fit(one, loader(16, batch_size=16))
    two = module()
    callback = PlainHeatmaps(variant, calibrate=1, dual_target="sum")
    trainer(callback, strategy="ddp_spawn", devices=2).fit(two, loader(16, batch_size=8))
    assert_same(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_measure_one_scale():
    """All images are one, so the mean of both norms is that of one process; the heatmaps' gradient is too large."""

    def copies(count: int) -> DataLoader:
        return DataLoader(TensorDataset(*(row.expand(count, *row.shape[1:]) for row in data(1).tensors)), batch_size=8)

    loss = ISNetLoss.paper(relevance_range=(1e-4, 1e-3), mask_dilation=0)
    one, two, unbalanced = Frozen(), Frozen(), Frozen()
    trainer(PlainHeatmaps(loss=loss, balance=0.5)).fit(one, copies(8))
    trainer(PlainHeatmaps(loss=loss, balance=0.5), strategy="ddp_spawn", devices=2).fit(two, copies(16))
    trainer(PlainHeatmaps(loss=loss)).fit(unbalanced, copies(8))
    assert_same(one, two, rtol=1e-4, atol=1e-6)
    assert_differ(one, unbalanced)
