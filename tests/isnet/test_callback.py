"""``ISNetCallback`` on LightningModules that know nothing of it, against hand-written loops and uninterrupted runs."""

from __future__ import annotations

import warnings

import pytest
import torch
from network_to_explain import Inner, PlainHeatmaps, assert_differ, assert_same, by_hand, data, loader, trainer
from small_training import Module
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.callbacks import BackgroundSwapCallback, ISNetCallback
from torch_bgdebias.isnet import BackgroundDimming, GradientBalance, ISNet, ISNetLoss, Rules
from torch_bgdebias.swap import BackgroundSwap

pytestmark = pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")


@pytest.mark.parametrize("variant", ["selective", "original", "dual"])
@pytest.mark.parametrize(("kind", "name"), [(Module, None), (Module, "net"), (Inner, "net")])
def test_trains_as_a_hand_written_loop(variant, kind, name):
    module = kind()
    trainer(PlainHeatmaps(variant, network=name, dual_target="sum")).fit(module, loader())
    assert_same(module, by_hand(Module(), variant=variant), rtol=1e-4, atol=1e-6)
    assert_differ(module, by_hand(Module(), weight=0.0))


def test_hidden_layers_and_options_reach_the_loss():
    options = {"deep_supervision": ["2"], "epsilon": 0.1, "batch_norm": "exact", "selective_eps": 1e-2}
    loss = ISNetLoss(rank_decay=0.5, layer_decay=0.7, mask_dilation=0)
    module = Module()
    trainer(PlainHeatmaps(loss=loss, network="net", weight=0.6, **options)).fit(module, loader())
    assert_same(module, by_hand(Module(), loss=loss, weight=0.6, **options), rtol=1e-4, atol=1e-6)
    assert_differ(module, by_hand(Module(), loss=loss, weight=0.6))


def test_gradient_attribution_and_zbox():
    module = Module()
    trainer(PlainHeatmaps(attribution="gradient")).fit(module, loader())
    assert_same(module, by_hand(Module(), attribution="gradient"), rtol=1e-4, atol=1e-6)
    options = {"input_rule": "zbox", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2)}
    module = Module()
    trainer(PlainHeatmaps(**options)).fit(module, loader())
    assert_same(module, by_hand(Module(), **options), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["selective", "stochastic", "dual"])
def test_defaults_are_those_of_a_loop_with_defaults(variant):
    """Equal weights: what the callback does by default is what the classes beneath it do by default."""

    class Loop(ISNetCallback):
        """The same draws, and the rest written by hand."""

        def _prepare(self, module) -> None:
            self.isnet, self.criterion, self.dims = ISNet(module.net, variant), ISNetLoss(), BackgroundDimming()
            self.balance = GradientBalance()

        def _step(self, call):
            generator = self._seeded(call.module)
            image, label, mask = call.batch
            explained = self.isnet.explain(self.dims(image, mask, generator=generator), generator=generator)
            heatmaps = self.criterion(explained.relevance, mask)
            entropy = F.cross_entropy(explained.logits, label)
            return 0.3 * entropy + 0.7 * self.balance(entropy, heatmaps, call.module.parameters())

    module, expected, plain = Module(), Module(), Module()
    trainer(ISNetCallback(variant, weight=0.7, log=False)).fit(module, wide_loader())
    Loop.__name__ = "ISNetCallback"  # part of what the draws depend on
    trainer(Loop(variant)).fit(expected, wide_loader())
    trainer(ISNetCallback(variant, weight=0.7, loss=ISNetLoss(mask_dilation=0))).fit(plain, wide_loader())
    assert_same(module, expected, rtol=1e-5, atol=1e-7)
    assert_differ(module, plain)


def wide_loader() -> DataLoader:
    """Masks that have a background left when they are grown."""
    image, label, mask = data().tensors
    mask = torch.zeros_like(mask)
    mask[:, :, 3:5, 3:5] = 1
    return DataLoader(TensorDataset(image, label, mask), batch_size=8)


def test_positions_of_earlier_releases_go_on_working():
    loss, spec = ISNetLoss(), BatchSpec(mask="seg")
    with pytest.warns(DeprecationWarning, match=r"is now ISNetCallback\(variant, spec, loss=..., weight=...\)"):
        old = ISNetCallback("dual", loss, 0.4, spec, dimming=0.5)
    assert (old.rules.variant, old.loss, old.weight, old.spec) == ("dual", loss, 0.4, spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = ISNetCallback("dual", spec, loss=loss, weight=0.4, dimming=0.5)
    assert new.state_key == old.state_key


def test_states_of_several_are_told_apart():
    options = [
        {}, {"seed": 1}, {"variant": "dual"}, {"spec": BatchSpec(mask=3)}, {"network": "net"}, {"epsilon": 0.1},
        {"loss": ISNetLoss(rank_decay=0.5)}, {"weight": 0.5}, {"deep_supervision": ["net.0"]}, {"mean": (0.5,)},
    ]  # fmt: skip
    keys = [ISNetCallback(**given).state_key for given in options]
    assert len(set(keys)) == len(keys)
    assert keys == [ISNetCallback(**given).state_key for given in options]


def test_dims_backgrounds_before_the_step_sees_them():
    seen: list[Tensor] = []

    class Watching(Module):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0].clone())
            return super().training_step(batch, batch_idx)

    module = Watching()
    trainer(ISNetCallback(loss=ISNetLoss(mask_dilation=0), weight=0.6, dimming=1.0, balance=None)).fit(module, loader())
    expected, loss = Module(), ISNetLoss(mask_dilation=0)
    isnet, optimizer = ISNet(expected.net), expected.configure_optimizers()
    for (image, label, mask), dimmed in zip([*loader(), *loader()], seen, strict=True):
        keep = (dimmed / image)[:, :1, :1, :1].flatten()
        torch.testing.assert_close(dimmed, BackgroundDimming()(image, mask, keep=keep))
        assert (keep > 0).all()
        assert (keep < 1).all()
        assert keep.std() > 0.1
        explained = isnet.explain(dimmed)
        total = 0.4 * F.cross_entropy(explained.logits, label) + 0.6 * loss(explained.relevance, mask)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert_same(module, expected, rtol=1e-4, atol=1e-6)


def test_part_of_the_batch_is_dimmed():
    seen: list[Tensor] = []

    class Watching(Module):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0].clone())
            return super().training_step(batch, batch_idx)

    data_loader = loader(64, 64)
    trainer(ISNetCallback(dimming=0.5), max_epochs=1).fit(Watching(), data_loader)
    changed = (seen[0] != next(iter(data_loader))[0]).flatten(1).any(1)
    assert 0.2 < changed.float().mean() < 0.8


def test_without_weight_it_is_the_plain_training():
    module, plain = Module(), Module()
    trainer(PlainHeatmaps(weight=0.0)).fit(module, loader())
    trainer().fit(plain, loader())
    assert_same(module, plain, rtol=0, atol=0)


def test_weight_follows_epochs_and_steps():
    seen = []

    def schedule(epoch: int, step: int) -> float:
        seen.append((epoch, step))
        return 0.3 if epoch == 0 else 0.8

    module = Module()
    trainer(PlainHeatmaps(weight=schedule)).fit(module, loader())
    assert seen == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert_same(module, by_hand(Module(), weight=lambda epoch: 0.3 if epoch == 0 else 0.8), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"weight: expected P in \[0, 1\], got 1.5"):
        trainer(PlainHeatmaps(weight=lambda epoch, step: 1.5)).fit(Module(), loader())


def test_logs_the_parts():
    module = Module()
    loss = ISNetLoss(background_weight=2.0, mask_dilation=0)
    run = trainer(PlainHeatmaps(weight=0.25, loss=loss), max_epochs=1)
    run.fit(module, loader())
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert set(logged) == {"isnet/heatmap_loss", "isnet/background", "isnet/foreground", "isnet/weight"}
    assert logged["isnet/weight"] == 0.25
    total = 2 * logged["isnet/background"] + logged["isnet/foreground"]
    assert logged["isnet/heatmap_loss"] == pytest.approx(total, rel=1e-5)


def test_one_forward_pass_a_step_unless_only_a_part_is_taken():
    class Counting(Module):
        sizes: list[int]

        def forward(self, image):
            self.sizes.append(len(image))
            return super().forward(image)

    for fraction, expected in ((1.0, [8, 8]), (0.4, [8, 3, 8, 3]), (0.01, [8, 1, 8, 1])):
        module = Counting(norm=False)
        module.sizes = []
        trainer(PlainHeatmaps(fraction=fraction), max_epochs=1).fit(module, loader())
        assert module.sizes == expected


def test_a_part_of_the_batch_is_explained_with_its_own_masks():
    class Recording(ISNetLoss):
        def terms(self, relevance, mask, hidden=None):
            seen.append((relevance.detach(), mask))
            return super().terms(relevance, mask, hidden)

    seen: list[tuple[Tensor, Tensor]] = []
    image, label, mask = data(8).tensors
    mask = torch.rand(8, 1, 1, 1, generator=torch.Generator().manual_seed(0)).expand(8, 1, 8, 8).contiguous()
    module = Module(norm=False, lr=0.0)
    batches = DataLoader(TensorDataset(image, label, mask), batch_size=8)
    for seed in (0, 0, 1):
        trainer(PlainHeatmaps(loss=Recording(), fraction=0.5, seed=seed), max_epochs=2).fit(module, batches)
    isnet = ISNet(module.net)
    for relevance, part in seen:
        rows = [int((mask[:, 0, 0, 0] == value).nonzero()) for value in part[:, 0, 0, 0]]
        assert len(set(rows)) == 4
        torch.testing.assert_close(relevance, isnet.explain(image[rows]).relevance.detach())
    parts = [part[:, 0, 0, 0].tolist() for _, part in seen]
    assert parts[:2] == parts[2:4]  # the same seed draws the same
    assert parts[0] != parts[1]  # every step draws anew
    assert parts[4:] != parts[:2]


def test_stochastic_draws_are_the_callback_s_own():
    def fit(seed: int, torch_seed: int) -> Module:
        module = Module()
        torch.manual_seed(torch_seed)
        trainer(PlainHeatmaps("stochastic", seed=seed)).fit(module, loader())
        return module

    assert_same(fit(0, 1), fit(0, 2), rtol=0, atol=0)
    assert_differ(fit(0, 1), fit(5, 1))


def test_compiled_network_is_unwrapped_with_a_warning():
    module = Module()
    module.net = torch.compile(module.net, backend="eager")
    with pytest.warns(UserWarning, match="is compiled"):
        trainer(PlainHeatmaps(network="net")).fit(module, loader())
    expected = by_hand(Module())
    assert_same(module.net._orig_mod, expected.net, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["selective", "stochastic", "original", "dual"])
def test_several_labels_an_image(variant):
    def classify(logits, label):
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(label, 4).float())

    class ManyLabels(Module):
        def training_step(self, batch, batch_idx):
            return classify(self(batch[0]), batch[1])

    module = ManyLabels()
    trainer(PlainHeatmaps(variant, multi_label=True, dual_target="sum")).fit(module, loader())
    assert all(torch.isfinite(p).all() for p in module.parameters())
    if variant == "stochastic":  # its draws are the callback's own
        assert_differ(module, by_hand(Module(), weight=0.0, classify=classify))
        return
    options = {"variant": variant, "classify": classify}
    assert_same(module, by_hand(Module(), multi_label=True, **options), rtol=1e-4, atol=1e-6)
    if variant == "selective":  # the lowest logit, not its log-odds among the others
        assert_differ(module, by_hand(Module(), **options))


def test_batches_of_any_kind():
    def collate(rows):
        image, label, mask = (torch.stack(column) for column in zip(*rows, strict=True))
        return {"pixels": image, "y": label, "seg": mask[:, 0] > 0}

    class Mapping(Module):
        def training_step(self, batch):
            return F.cross_entropy(self(batch["pixels"]), batch["y"])

    module = Mapping()
    spec = BatchSpec(image="pixels", label="y", mask="seg")
    trainer(PlainHeatmaps(spec=spec)).fit(module, loader(collate_fn=collate))
    assert_same(module, by_hand(Module()), rtol=1e-4, atol=1e-6)


def test_output_as_a_dict_of_logits():
    class Answer(Module):
        def forward(self, image):
            return {"scores": self.net(image)}

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0])["scores"], batch[1])

    module = Answer()
    trainer(PlainHeatmaps(logits="scores")).fit(module, loader())
    assert_same(module, by_hand(Module()), rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="no logits at None"):
        trainer(PlainHeatmaps()).fit(Answer(), loader())


def test_stacks_with_the_background_swap():
    class Recording(Module):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0].clone())
            return super().training_step(batch, batch_idx)

    for order in (1, -1):
        seen: list[Tensor] = []
        module = Recording()
        callbacks = [BackgroundSwapCallback(BackgroundSwap("batch"), seed=1), PlainHeatmaps()][::order]
        trainer(*callbacks).fit(module, loader())
        swapped = [(image, *batch[1:]) for image, batch in zip(seen, [*loader(), *loader()], strict=True)]
        assert not torch.equal(seen[0], next(iter(loader()))[0])
        assert_same(module, by_hand(Module(), epochs=1, batches=swapped), rtol=1e-4, atol=1e-6)


def test_two_of_them_explain_one_forward_pass():
    module = Module()
    loss = ISNetLoss(rank_decay=0.5, mask_dilation=0)
    trainer(
        PlainHeatmaps("original", weight=0.4, network="net"), PlainHeatmaps("selective", loss=loss, weight=0.2)
    ).fit(module, loader())
    expected = Module()
    a, b = ISNet(expected.net, "original"), ISNet(expected.net, "selective")
    optimizer = expected.configure_optimizers()
    for _ in range(2):
        for image, label, mask in loader():
            with a.watching() as first, b.watching() as second:
                total = F.cross_entropy(expected.net(image), label)
            for watch, heatmaps, p in ((second, loss, 0.2), (first, ISNetLoss(mask_dilation=0), 0.4)):
                total = (1 - p) * total + p * heatmaps(watch.explain().relevance, mask)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    assert_same(module, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(RuntimeError, match="is called in a forward pass that is explained already, by other rules"):
        trainer(PlainHeatmaps("dual"), PlainHeatmaps()).fit(Module(), loader())


def test_a_skipped_batch_stays_skipped():
    class Skipping(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx == 0 else loss

    for fraction in (1.0, 0.5):
        module = Skipping(norm=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*training_step.*returned.*None")
            trainer(PlainHeatmaps(fraction=fraction), max_epochs=1).fit(module, loader())
        assert_differ(module, Module(norm=False))
    second = list(loader())[1:]
    module = Skipping(norm=False)
    trainer(PlainHeatmaps(), max_epochs=1).fit(module, loader())
    assert_same(module, by_hand(Module(norm=False), epochs=1, batches=second), rtol=1e-4, atol=1e-6)


def test_the_papers_settings_are_one_word_away():
    callback = ISNetCallback.paper("dual", weight=0.5)
    rules = Rules("dual", selective_eps=1e-2, dual_target="sum")
    same = ISNetCallback(rules, loss=ISNetLoss.paper(mask_dilation=0), balance=None, dimming=0.0, weight=0.5)
    assert callback.state_key == same.state_key
    assert callback.loss.options == same.loss.options
    assert callback.loss.form == "paper"
    assert ISNetCallback.paper(loss=ISNetLoss(), balance=2.0).settings.balance == 2.0
