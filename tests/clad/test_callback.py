from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from clad_fit import RANK_0, SIZE, K, Objects, Plain, fit, fresh, network
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.clad import CLADLoss
from torch_bgdebias.swap import BackgroundBank, BackgroundSwap


def by_hand(module, steps, plus=False, weight=1.0, **settings):
    """The same training as a plain loop: own swap with the callback's draws, own losses, own passes."""
    reference = CLADCallback(BackgroundSwap(), **settings)
    loss = reference.settings.new_loss(K)
    optimizer, values = module.configure_optimizers(), []
    module.train()
    for image, label, mask in DataLoader(Objects(), batch_size=8):
        generator = reference._seeded(RANK_0)
        other = reference.swap(image, mask=mask, label=label, different_class=True, generator=generator)
        background = reference.swap.drawn["background_label"]
        body, head = module.model[:-1], module.model[-1]
        if reference.settings.joint:
            anchor, positive = body(torch.cat([image, other])).chunk(2)
        else:
            anchor, positive = body(image), body(other)
        total = F.cross_entropy(head(anchor), label) + weight * loss(anchor, positive, label, background)
        if plus:
            total = total + F.cross_entropy(head(positive), label)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        reference.steps += 1
        values.append(total.item())
        if len(values) == steps:
            break
    return values


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("joint", [False, True])
def test_equals_a_plain_loop(plus, joint):
    module = fresh()
    callback = CLADCallback(BackgroundSwap(), plus=plus, joint=joint, weight=0.7, num_negatives=5)
    fit(module, callback)
    expected = by_hand(fresh(), 3, plus=plus, weight=0.7, joint=joint, num_negatives=5)
    assert [total for _, total in module.losses] == pytest.approx(expected, rel=1e-5)
    assert module.shapes == [(8, K)] * 3  # the user's step sees its own batch only


def test_without_batch_norm_one_pass_equals_two():
    runs = []
    for joint in (False, True):
        module = fresh(model=None)
        module.model = network(batch_norm=False)
        module.model.load_state_dict(runs[0][1] if runs else module.model.state_dict())
        start = copy.deepcopy(module.model.state_dict())
        fit(module, CLADCallback(BackgroundSwap(), joint=joint, plus=True))
        runs.append((module.losses, start))
    for one, two in zip(runs[0][0], runs[1][0], strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_weight_zero_leaves_the_loss_and_a_schedule_is_followed():
    module = fresh()
    fit(module, CLADCallback(BackgroundSwap(), weight=0.0))
    assert all(own == total for own, total in module.losses)
    seen = []

    def schedule(epoch, step):
        seen.append((epoch, step))
        return float(epoch)

    module = fresh()
    fit(module, CLADCallback(BackgroundSwap(), weight=schedule), epochs=2)
    assert seen == [(epoch, 3 * epoch + i) for epoch in range(2) for i in range(3)]
    assert all(own == total for own, total in module.losses[:3])
    assert all(own < total for own, total in module.losses[3:])


def test_parts_are_logged():
    trainer = fit(fresh(), CLADCallback(BackgroundSwap(), plus=True, weight=0.5, num_negatives=3), epochs=2)
    logged = trainer.callback_metrics
    assert set(logged) >= {"clad/loss", "clad/ce_positive", "clad/queue_fill", "clad/weight"}
    assert logged["clad/queue_fill"] == 1
    assert logged["clad/weight"] == 0.5
    assert logged["clad/loss"] > 0


def test_module_is_as_it_was_after_a_failure():
    class Failing(Plain):
        def training_step(self, batch, batch_idx):
            self.classify(batch[0])
            raise RuntimeError("the user's own error")

    module = Failing()
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(module, CLADCallback(BackgroundSwap(), joint=True))
    assert "training_step" not in vars(module)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in module.modules())


class ByForward(Plain):
    def forward(self, image):
        return self.model(image)

    def classify(self, image):
        return self(image)


class ByForwardMethod(ByForward):
    def __init__(self):
        super().__init__()
        self.body, self.head = self.model[:-1], self.model[-1]
        del self.model

    def forward(self, image):
        return self.head(self.body(image))

    def classify(self, image):
        return self.forward(image)  # around the hooks


class WholeBatch(ByForward):
    def forward(self, batch):
        return {"logits": self.model(batch["image"])}

    def training_step(self, batch, batch_idx):
        return {"loss": F.cross_entropy(self(batch)["logits"], batch["label"])}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.losses.append((0, outputs["loss"].item()))


@pytest.mark.parametrize("kind", [Plain, ByForward, ByForwardMethod])
def test_ways_to_the_network_give_the_same(kind):
    torch.manual_seed(0)
    module = kind()
    fit(module, CLADCallback(BackgroundSwap()))
    assert [total for _, total in module.losses] == pytest.approx(by_hand(fresh(), 3), rel=1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_dict_batches_and_dict_outputs(joint):
    torch.manual_seed(0)
    module = WholeBatch()
    spec = BatchSpec(image="image", label="label", mask="mask")
    fit(module, CLADCallback(BackgroundSwap(), spec=spec, joint=joint), form="dict")
    assert [total for _, total in module.losses] == pytest.approx(by_hand(fresh(), 3, joint=joint), rel=1e-5)


def test_images_normalised_by_the_step_are_swapped_as_they_enter_the_network():
    class Normalising(Plain):
        def classify(self, image):
            return self.model(image - 0.5)

    callback = CLADCallback(BackgroundSwap())
    with pytest.warns(UserWarning, match="training_step changes the images before Sequential gets them"):
        fit(Normalising(), callback)
    assert callback.loss.queue.fill.sum() > 0


def test_any_layer_by_name_and_maps_are_averaged():
    for layer, width in (("model.4", 216), ("model.2", 6), ("model.6", 10)):
        callback = CLADCallback(BackgroundSwap(), num_classes=K, layer=layer, plus=True)
        fit(fresh(), callback)
        assert callback.loss.queue.dim == width


def test_an_ambiguous_head_lists_the_candidates():
    class TwoHeads(Plain):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(10, K)

    with pytest.raises(
        LookupError, match=r"name one of: model\.6 \(10 -> 4\), other \(10 -> 4\); pass CLADCallback\(layer"
    ):
        fit(TwoHeads(), CLADCallback(BackgroundSwap()))
    fit(TwoHeads(), CLADCallback(BackgroundSwap(), layer="model.6"))
    with pytest.raises(LookupError, match="'other' took no part in training_step"):
        fit(TwoHeads(), CLADCallback(BackgroundSwap(), layer="other"))
    with pytest.raises(KeyError, match=r"layer 'model\.60' is not in TwoHeads; near names: model\.6"):
        fit(TwoHeads(), CLADCallback(BackgroundSwap(), num_classes=K, layer="model.60"))


class MultiLabel(Plain):
    def criterion(self, logits, target):
        return F.binary_cross_entropy_with_logits(logits, target)


def test_multi_label_targets():
    spec = BatchSpec(image="image", label="many", mask="mask")

    def module():
        return MultiLabel(image="image", label="many")

    with pytest.raises(TypeError, match="expected one class a sample .* pass label_of="):
        fit(module(), CLADCallback(BackgroundSwap(), spec=spec), form="dict")
    callback = CLADCallback(BackgroundSwap(), spec=spec, label_of=lambda target: target.argmax(1))
    fit(module(), callback, form="dict")
    assert callback.loss.queue.fill.sum() > 0
    with pytest.raises(TypeError, match="pass criterion=F.binary_cross_entropy_with_logits"):
        fit(module(), CLADCallback(BackgroundSwap(), spec=spec, label_of=lambda t: t.argmax(1), plus=True), form="dict")
    criterion = F.binary_cross_entropy_with_logits
    settings = {"label_of": lambda t: t.argmax(1), "plus": True, "criterion": criterion}
    trainer = fit(module(), CLADCallback(BackgroundSwap(), spec=spec, **settings), form="dict")
    assert trainer.callback_metrics["clad/ce_positive"] > 0
    site = BatchSpec(image="image", label="many", mask="mask", background_label="site")
    callback = CLADCallback(BackgroundSwap(), num_classes=2, spec=site)  # the batch says the key
    fit(module(), callback, form="dict")
    assert callback.loss.queue.fill.tolist() == [(Objects().site == 1).sum(), (Objects().site == 0).sum()]


def test_the_key_may_be_the_site():
    spec = BatchSpec(image="image", label="label", mask="mask", background_label="site")
    module = fresh(image="image", label="label")
    with pytest.raises(ValueError, match="num_classes: expected how many background labels there are"):
        fit(module, CLADCallback(BackgroundSwap(), spec=spec), form="dict")
    callback = CLADCallback(BackgroundSwap(), num_classes=2, spec=spec, num_negatives=50)
    fit(module, callback, form="dict")
    data = Objects()
    # every image was put on a background of the other site
    assert callback.loss.queue.fill.tolist() == [(data.site == 1).sum(), (data.site == 0).sum()]
    assert sorted(callback.loss.queue.foreground[callback.loss.queue.foreground >= 0].tolist()) == sorted(
        data.label.tolist()
    )


def test_positives_from_a_bank():
    bank = BackgroundBank(torch.rand(12, 3, SIZE, SIZE), torch.arange(12) % K)
    callback = CLADCallback(BackgroundSwap(bank))
    fit(fresh(), callback)
    queue = callback.loss.queue
    filled = torch.arange(queue.size) < queue.fill[:, None]
    assert (queue.foreground[filled] >= 0).all()
    assert (queue.foreground != torch.arange(K)[:, None])[filled].all()


@pytest.mark.parametrize("joint", [False, True])
def test_a_resumed_fit_equals_an_uninterrupted_one(tmp_path, joint):
    def callback():
        return CLADCallback(BackgroundSwap(pattern="voronoi", cells=3), joint=joint, plus=True, num_negatives=5)

    whole = fresh()
    fit(whole, callback(), epochs=4)
    first = fresh()
    trainer = fit(first, callback(), epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.rand(7)  # the global generator may be anywhere
    second = fresh(seed=5)
    fit(second, callback(), epochs=4, ckpt=tmp_path / "half.ckpt")
    assert first.losses + second.losses == whole.losses
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_two_at_once_keep_their_own_state(tmp_path):
    def callbacks():
        site = BatchSpec(image="image", label="label", mask="mask", background_label="site")
        plain = BatchSpec(image="image", label="label", mask="mask")
        return CLADCallback(BackgroundSwap(), num_classes=2, spec=site), CLADCallback(BackgroundSwap(), spec=plain)

    first = callbacks()
    trainer = fit(fresh(image="image", label="label"), *first, form="dict")
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    second = callbacks()
    fit(fresh(image="image", label="label"), *second, form="dict", ckpt=tmp_path / "two.ckpt")  # nothing left to do
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.loss.queue.rows, two.loss.queue.rows)


def test_gradient_accumulation_equals_the_sum_of_its_parts():
    module = fresh(lr=0.1)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.1)
    start = copy.deepcopy(module.model)
    fit(module, CLADCallback(BackgroundSwap(), num_negatives=4), accumulate_grad_batches=3)
    reference = CLADCallback(BackgroundSwap(), num_negatives=4)
    loss = CLADLoss(K, None, 4)
    for image, label, mask in DataLoader(Objects(), batch_size=8):
        generator = reference._seeded(RANK_0)
        other = reference.swap(image, mask=mask, label=label, different_class=True, generator=generator)
        anchor, positive = start[:-1](image), start[:-1](other)
        total = F.cross_entropy(start[-1](anchor), label)
        ((total + loss(anchor, positive, label, reference.swap.drawn["background_label"])) / 3).backward()
        reference.steps += 1
    for ours, theirs in zip(module.model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)
