"""CLAD on volumes: the same numbers as a plain loop, positives with other backgrounds, in one pass or two."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_training import RANK_0, fit, loader, theirs
from small_volumes import network, volumes

from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import BackgroundSwapCallback, CLADCallback
from torch_bgdebias.clad.paired import as_vectors
from torch_bgdebias.swap import BackgroundSwap


def by_hand(module, joint: bool) -> list[float]:
    """Own swap with the callback's draws, own passes."""
    reference = CLADCallback(BackgroundSwap(), num_negatives=4)
    loss, values = reference.settings.new_loss(3), []
    optimizer = module.configure_optimizers()
    module.train()
    for image, label, mask in loader(*volumes()):
        generator = reference._seeded(RANK_0)
        other = reference.swap(image, mask=mask, label=label, different_class=True, generator=generator)
        background = reference.swap.drawn["background_label"]
        body, head = module.net[:-1], module.net[-1]
        anchor, positive = body(torch.cat([image, other])).chunk(2) if joint else (body(image), body(other))
        total = F.cross_entropy(head(anchor), label) + loss(anchor, positive, label, background)
        total = total + F.cross_entropy(head(positive), label)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        reference.steps += 1
        values.append(total.item())
    return values


@pytest.mark.parametrize("joint", [False, True])
def test_equals_a_plain_loop(joint):
    modules = [theirs(), theirs()]
    for module in modules:
        module.net = network()
    callback = CLADCallback(BackgroundSwap(), BatchSpec(), plus=True, num_negatives=4, joint=joint)
    fit(modules[0], callback, train=loader(*volumes()), max_epochs=1)
    assert [float(x) for x in modules[0].totals] == pytest.approx(by_hand(modules[1], joint), rel=1e-6)


def test_swapping_alone_trains():
    module = theirs()
    module.net = network()
    run = fit(module, BackgroundSwapCallback(BackgroundSwap(pattern="voronoi"), BatchSpec()), train=loader(*volumes()))
    assert float(run.callback_metrics["background_swap/fraction"]) == 1


def test_maps_of_volumes_are_averaged():
    maps = torch.rand(2, 3, 4, 5, 6)
    torch.testing.assert_close(as_vectors(maps, 2, "head"), maps.mean((2, 3, 4)))
