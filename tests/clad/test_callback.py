from __future__ import annotations

import copy
import dataclasses
import warnings
from functools import partial

import pytest
import small_training
import torch
import torch.nn.functional as F
from clad_by_hand import by_hand
from small_training import CLASSES, NAMED, RANK_0, SIDE, CallsItsNetwork, Module, NamedFields, loader
from torch import nn

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.clad import CLADLoss
from torch_bgdebias.swap import BackgroundSwap

fit = partial(small_training.fit, max_epochs=1)
SITE = dataclasses.replace(NAMED, background_label="site")


def totals(module):
    return [total.item() for total in module.totals]


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("joint", [False, True])
def test_equals_a_plain_loop(plus, joint):
    shapes = []

    class Recording(CallsItsNetwork):
        def criterion(self, logits, target):
            shapes.append(tuple(logits.shape))
            return super().criterion(logits, target)

    module = Recording()
    fit(module, CLADCallback(BackgroundSwap(), plus=plus, joint=joint, weight=0.7, num_negatives=5))
    expected = by_hand(Module(), loader(), steps=3, plus=plus, weight=0.7, joint=joint, num_negatives=5)
    assert totals(module) == pytest.approx(expected, rel=1e-5)
    assert shapes == [(8, CLASSES)] * 3  # the user's step sees its own batch only


def test_without_batch_norm_one_pass_equals_two():
    runs = []
    for joint in (False, True):
        module = CallsItsNetwork(norm=False)
        fit(module, CLADCallback(BackgroundSwap(), joint=joint, plus=True))
        runs.append((module.losses, module.totals))
    for one, two in zip(*runs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=0)


def test_weight_zero_leaves_the_loss_and_a_schedule_is_followed():
    module = Module()
    fit(module, CLADCallback(BackgroundSwap(), weight=0.0))
    assert module.losses == module.totals
    seen = []

    def schedule(epoch, step):
        seen.append((epoch, step))
        return float(epoch)

    module = Module()
    fit(module, CLADCallback(BackgroundSwap(), weight=schedule), max_epochs=2)
    assert seen == [(epoch, 3 * epoch + i) for epoch in range(2) for i in range(3)]
    assert module.losses[:3] == module.totals[:3]
    assert all(own < total for own, total in zip(module.losses[3:], module.totals[3:], strict=True))


def test_parts_are_logged():
    trainer = fit(Module(), CLADCallback(BackgroundSwap(), plus=True, weight=0.5, num_negatives=3), max_epochs=2)
    logged = trainer.callback_metrics
    assert set(logged) >= {"clad/loss", "clad/ce_positive", "clad/queue_fill", "clad/weight"}
    assert logged["clad/queue_fill"] == 1
    assert logged["clad/weight"] == 0.5
    assert logged["clad/loss"] > 0


class AroundTheHooks(Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = self.net[:-1], self.net[-1]
        del self.net

    def forward(self, image):
        return self.head(self.body(image))

    def classify(self, image):
        return self.forward(image)


class WholeBatch(Module):
    def forward(self, batch):
        return {"logits": self.net(batch["image"])}

    def training_step(self, batch, batch_idx):
        return {"loss": F.cross_entropy(self(batch)["logits"], batch["label"])}


@pytest.mark.parametrize("kind", [CallsItsNetwork, Module, AroundTheHooks])
def test_ways_to_the_network_give_the_same(kind):
    module = kind()
    fit(module, CLADCallback(BackgroundSwap()))
    assert totals(module) == pytest.approx(by_hand(Module(), loader(), steps=3), rel=1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_dict_batches_and_dict_outputs(joint):
    module = WholeBatch()
    fit(module, CLADCallback(BackgroundSwap(), spec=NAMED, joint=joint), train=loader(NamedFields()))
    assert totals(module) == pytest.approx(by_hand(Module(), loader(), steps=3, joint=joint), rel=1e-5)


class Changing(CallsItsNetwork):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def classify(self, image):
        return self.net(self.change(image))


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda image: image - 0.5, 0),
        (lambda image: image.clone(memory_format=torch.channels_last), 0),
        (lambda image: image.flip(3), 1),
        (lambda image: image.mul_(0.6).add_(image.flip(0)), 1),
        (lambda image: image.sub_(0.5), 0),
    ],
    ids=["normalised", "copied", "flipped", "mixed in place", "normalised in place"],
)
def test_images_are_swapped_as_they_enter_the_network_and_flips_are_told_of_once(change, messages):
    callback = CLADCallback(BackgroundSwap())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Changing(change), callback)
    where = "training_step changes the images before the network gets them by more than a normalisation"
    assert sum(where in str(one.message) for one in caught) == messages
    assert callback.loss.queue.fill.sum() > 0


def test_any_layer_by_name_and_maps_are_averaged():
    for layer, width in (("net.5", 96), ("net.2", 6), ("net.0", 3)):
        callback = CLADCallback(BackgroundSwap(), num_classes=CLASSES, layer=layer, plus=True)
        fit(Module(), callback)
        assert callback.loss.queue.dim == width


def test_an_ambiguous_head_lists_the_candidates():
    class TwoHeads(Module):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(96, CLASSES)

    with pytest.raises(
        LookupError, match=r"name one of: net\.5 \(96 -> 4\), other \(96 -> 4\); pass CLADCallback\(layer"
    ):
        fit(TwoHeads(), CLADCallback(BackgroundSwap()))
    fit(TwoHeads(), CLADCallback(BackgroundSwap(), layer="net.5"))
    with pytest.raises(LookupError, match="'other' took no part in training_step"):
        fit(TwoHeads(), CLADCallback(BackgroundSwap(), layer="other"))
    with pytest.raises(LookupError, match=r"layer 'net\.50' is not in TwoHeads; near names: net\.5"):
        fit(TwoHeads(), CLADCallback(BackgroundSwap(), num_classes=CLASSES, layer="net.50"))


class MultiLabel(Module):
    def criterion(self, logits, target):
        return F.binary_cross_entropy_with_logits(logits, target)


def test_multi_label_targets():
    spec = dataclasses.replace(NAMED, label="many")
    batches = loader(NamedFields())

    def module():
        return MultiLabel(image="image", label="many")

    with pytest.raises(TypeError, match="expected one class a sample .* pass label_of="):
        fit(module(), CLADCallback(BackgroundSwap(), spec=spec), train=batches)
    callback = CLADCallback(BackgroundSwap(), spec=spec, label_of=lambda target: target.argmax(1))
    fit(module(), callback, train=batches)
    assert callback.loss.queue.fill.sum() > 0
    with pytest.raises(TypeError, match="pass criterion=F.binary_cross_entropy_with_logits"):
        without = CLADCallback(BackgroundSwap(), spec=spec, label_of=lambda t: t.argmax(1), plus=True)
        fit(module(), without, train=batches)
    criterion = F.binary_cross_entropy_with_logits
    settings = {"label_of": lambda t: t.argmax(1), "plus": True, "criterion": criterion}
    run = fit(module(), CLADCallback(BackgroundSwap(), spec=spec, **settings), train=batches)
    assert run.callback_metrics["clad/ce_positive"] > 0
    site = dataclasses.replace(spec, background_label="site")
    callback = CLADCallback(BackgroundSwap(), num_classes=2, spec=site)  # the batch says the key
    fit(module(), callback, train=batches)
    sites = NamedFields().fields["site"]
    assert callback.loss.queue.fill.tolist() == [(sites == 1).sum(), (sites == 0).sum()]


def test_the_key_may_be_the_site():
    module, data = Module(image="image", label="label"), NamedFields()
    with pytest.raises(ValueError, match="num_classes: expected how many background labels there are"):
        fit(module, CLADCallback(BackgroundSwap(), spec=SITE), train=loader(data))
    callback = CLADCallback(BackgroundSwap(), num_classes=2, spec=SITE, num_negatives=50)
    fit(module, callback, train=loader(data))
    # every image was put on a background of the other site
    queue, site = callback.loss.queue, data.fields["site"]
    assert queue.fill.tolist() == [(site == 1).sum(), (site == 0).sum()]
    assert sorted(queue.foreground[queue.foreground >= 0].tolist()) == sorted(data.fields["label"].tolist())


def test_positives_from_a_bank():
    bank = BackgroundBank(torch.rand(12, 3, SIDE, SIDE), torch.arange(12) % CLASSES)
    callback = CLADCallback(BackgroundSwap(bank))
    fit(Module(), callback)
    queue = callback.loss.queue
    filled = torch.arange(queue.size) < queue.fill[:, None]
    assert (queue.foreground[filled] >= 0).all()
    assert (queue.foreground != torch.arange(CLASSES)[:, None])[filled].all()


def test_two_at_once_keep_their_own_state(tmp_path):
    def callbacks():
        return CLADCallback(BackgroundSwap(), num_classes=2, spec=SITE), CLADCallback(BackgroundSwap(), spec=NAMED)

    def module():
        return Module(image="image", label="label")

    first = callbacks()
    fit(module(), *first, train=loader(NamedFields())).save_checkpoint(tmp_path / "two.ckpt")
    second = callbacks()
    fit(module(), *second, train=loader(NamedFields()), ckpt=tmp_path / "two.ckpt")  # nothing left to do
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.loss.queue.rows, two.loss.queue.rows)


def test_gradient_accumulation_equals_the_sum_of_its_parts():
    module = Module(lr=0.1)
    start = copy.deepcopy(module.net)
    fit(module, CLADCallback(BackgroundSwap(), num_negatives=4), accumulate_grad_batches=3)
    reference = CLADCallback(BackgroundSwap(), num_negatives=4)
    loss = CLADLoss(CLASSES, None, 4)
    for image, label, mask in loader():
        generator = reference._seeded(RANK_0)
        other = reference.swap(image, mask=mask, label=label, different_class=True, generator=generator)
        anchor, positive = start[:-1](image), start[:-1](other)
        total = F.cross_entropy(start[-1](anchor), label)
        ((total + loss(anchor, positive, label, reference.swap.drawn["background_label"])) / 3).backward()
        reference.steps += 1
    for ours, theirs in zip(module.net.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


class Prototypes(Module):
    """Its forward gives features; a class is as likely as its prototype is near."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 16)))
        self.register_buffer("prototypes", torch.randn(CLASSES, 16, generator=torch.Generator().manual_seed(0)))

    def classify(self, image):
        return -torch.cdist(self(image), self.prototypes)


def test_features_are_not_trained_as_if_they_were_classes():
    message = "layer: expected 4 numbers an image, as many as training_step takes its loss of, got 16 from 'net.1'"
    with pytest.raises(ValueError, match=message):
        fit(Prototypes(), CLADCallback(BackgroundSwap(), plus=True, num_classes=CLASSES))
    near = CLADCallback(
        BackgroundSwap(), plus=True, num_classes=CLASSES, criterion=lambda z, y: F.cross_entropy(z[:, :CLASSES], y)
    )
    fit(Prototypes(), near)
    fit(Prototypes(), CLADCallback(BackgroundSwap(), num_classes=CLASSES))


class TwoQuestions(Module):
    """Classes, and the camera that took the picture, of the same features."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.classes, self.camera = self.net[:-1], nn.Linear(96, CLASSES), nn.Linear(96, 9)

    def forward(self, image):
        features = self.net(image)
        return self.classes(features), self.camera(features)

    def training_step(self, batch, batch_idx):
        logits, camera = self(batch[0])
        return F.cross_entropy(logits, batch[1]) + F.cross_entropy(camera, batch[1] * 2)


def test_of_heads_that_answer_two_questions_none_is_guessed():
    message = "takes losses of 4 and 9 numbers an image.*name their layer, 'camera' or 'classes', or pass plus=False"
    with pytest.raises(ValueError, match=message):
        fit(TwoQuestions(), CLADCallback(BackgroundSwap(), plus=True))
    fit(TwoQuestions(), CLADCallback(BackgroundSwap()))
    named = CLADCallback(BackgroundSwap(), plus=True, layer="classes", logits=0)
    fit(TwoQuestions(), named)
    assert named.loss.queue.num_classes == CLASSES
