"""What a callback promises whoever knows the layer beneath it: the same defaults, the same training."""

from __future__ import annotations

import inspect

import pytest
import small_training as small
import torch
import torch.nn.functional as F

from torch_bgdebias import BackgroundSwap, BatchSpec, CLADLoss, ISNet, ISNetLoss, callbacks
from torch_bgdebias.callbacks import BackgroundSwapCallback, CLADCallback, ISNetCallback
from torch_bgdebias.isnet import BackgroundDimming, GradientBalance

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def defaults(function) -> dict:
    return {name: p.default for name, p in inspect.signature(function).parameters.items() if p.default is not p.empty}


@pytest.mark.parametrize(("callback", "beneath"), [(CLADCallback, CLADLoss)])
def test_defaults_are_those_of_the_layer_beneath(callback, beneath):
    ours, theirs = defaults(callback), defaults(beneath)
    shared = ours.keys() & theirs.keys()
    assert shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


#: reads no batch and draws nothing
WITHOUT_BATCH = {"FreezeLowerStages"}


@pytest.mark.parametrize("name", sorted(set(callbacks.__all__) - WITHOUT_BATCH))
def test_the_contract(name):
    """``(main object, spec=None, *, weight or schedule, seed=0, log=True)``."""
    callback = getattr(callbacks, name)
    parameters = list(inspect.signature(callback).parameters.values())
    assert parameters[1].name == "spec"
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters[2:])
    assert {key: defaults(callback)[key] for key in ("spec", "seed", "log")} == {"spec": None, "seed": 0, "log": True}


def loop(loss_of, epochs=2):
    """A plain training loop; ``loss_of(network, image, label, mask)``."""
    net = small.network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for image, label, mask in small.loader():
            optimizer.zero_grad()
            loss_of(net, image, label, mask).backward()
            optimizer.step()
    return net


def fitted(callback):
    module = small.theirs()
    small.trainer([callback]).fit(module, small.loader())
    return module.net


def assert_equal_weights(one, other):
    for (name, ours), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}")


def test_swap_trains_as_a_plain_loop_with_defaults():
    swap, reference = BackgroundSwap(), BackgroundSwapCallback(BackgroundSwap())

    def loss(net, image, label, mask):
        swapped = swap(image, mask=mask, label=label, generator=reference._seeded(small.RANK_0))
        reference.steps += 1
        return F.cross_entropy(net(swapped), label)

    assert_equal_weights(fitted(BackgroundSwapCallback(BackgroundSwap())), loop(loss))


def test_clad_trains_as_a_plain_loop_with_defaults():
    swap, clad, reference = BackgroundSwap(), CLADLoss(small.CLASSES), CLADCallback(BackgroundSwap())

    def loss(net, image, label, mask):
        generator = reference._seeded(small.RANK_0)
        positive = swap(image, mask=mask, label=label, different_class=True, generator=generator)
        reference.steps += 1
        anchor, other = net[:-1](image), net[:-1](positive)
        return F.cross_entropy(net[-1](anchor), label) + clad(anchor, other, label, swap.drawn["background_label"])

    assert_equal_weights(fitted(CLADCallback(BackgroundSwap())), loop(loss))


def test_isnet_trains_as_a_plain_loop_with_defaults():
    reference, heatmap_loss, dim, balance = ISNetCallback(), ISNetLoss(), BackgroundDimming(), GradientBalance()

    def loss(net, image, label, mask):
        generator = reference._seeded(small.RANK_0)
        reference.steps += 1
        explanation = ISNet(net, "selective").explain(dim(image, mask, generator=generator), create_graph=True)
        heatmap = heatmap_loss(explanation.relevance, mask, explanation.hidden)
        entropy = F.cross_entropy(explanation.logits, label)
        return 0.3 * entropy + 0.7 * balance(entropy, heatmap, net.parameters())

    assert_equal_weights(fitted(ISNetCallback()), loop(loss))


SWAP_OPTIONS = {"schedule": lambda epoch, step: 0.5, "start_epoch": 1, "refresh": 3}
CLAD_OPTIONS = {
    "num_classes": 3, "weight": 0.5, "plus": True, "num_negatives": 5, "temperature": 0.3, "layer": "net.5",
    "joint": True, "label_of": torch.flatten, "criterion": F.cross_entropy, "logits": 0, "max_batch": 9, "refresh": 3,
    "forward": lambda module, image: module(image),
}  # fmt: skip


@pytest.mark.parametrize(
    ("callback", "options"), [(BackgroundSwapCallback, SWAP_OPTIONS), (CLADCallback, CLAD_OPTIONS)]
)
def test_every_option_tells_two_states_apart(callback, options):
    rest = set(inspect.signature(callback).parameters) - {"swap", "spec", "seed", "log"}
    assert set(options) == rest, "a new option: say how it may differ"
    callbacks = [callback(BackgroundSwap(), **{name: value}) for name, value in options.items()]
    callbacks += [callback(BackgroundSwap(), seed=1), callback(BackgroundSwap(), BatchSpec(mask=3))]
    callbacks += [callback(BackgroundSwap(**other)) for other in ({"p": 0.5}, {"pattern": "voronoi"}, {"cells": 3}, {})]
    assert len({each.state_key for each in callbacks}) == len(callbacks)
    assert callback(BackgroundSwap()).state_key == callbacks[-1].state_key  # and is the same in every run


def test_a_state_is_found_though_an_option_has_changed(tmp_path):
    def fit(callback, epochs, ckpt=None):
        run = small.trainer([callback], max_epochs=epochs)
        run.fit(small.theirs(), small.loader(), ckpt_path=ckpt, **small.unpickled(run, ckpt))
        return run

    fit(CLADCallback(BackgroundSwap()), 1).save_checkpoint(tmp_path / "one.ckpt")
    callback = CLADCallback(BackgroundSwap(), weight=0.5)
    fit(callback, 2, tmp_path / "one.ckpt")
    assert callback.steps == 6


def test_old_ways_go_on_working():
    with pytest.warns(DeprecationWarning, match=r"schedule\(epoch\) is now schedule\(epoch, step\)"):
        callback = BackgroundSwapCallback(BackgroundSwap(), schedule=lambda epoch: epoch / 4)
    assert callback.probability(2, 100) == 0.5
    with pytest.warns(DeprecationWarning, match=r"CLADCallback\(swap, K\) is now CLADCallback\(swap, num_classes=K\)"):
        assert CLADCallback(BackgroundSwap(), 4, spec=BatchSpec(mask=3)).settings.num_classes == 4


def test_schedules_count_batches():
    seen = []

    def schedule(epoch, step):
        seen.append((epoch, step))
        return 0.5

    small.trainer([BackgroundSwapCallback(BackgroundSwap(), schedule=schedule)], accumulate_grad_batches=3).fit(
        small.theirs(), small.loader()
    )
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="seed: expected a whole number, got 'one'"):
        BackgroundSwapCallback(BackgroundSwap(), seed="one")
    with pytest.raises(TypeError, match="log: expected True, False or a prefix for the names, got 2"):
        BackgroundSwapCallback(BackgroundSwap(), log=2)
    with pytest.raises(TypeError, match="spec: expected a BatchSpec, got tuple"):
        BackgroundSwapCallback(BackgroundSwap(), (0, 1, 2))
