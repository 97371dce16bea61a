"""CLAD on volumes: the same numbers as a plain loop, positives with other backgrounds, in one pass or two."""

from __future__ import annotations

import pytest
import torch
from clad_by_hand import by_hand
from small_training import fit, loader, theirs
from small_volumes import network, volumes

from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import BackgroundSwapCallback, CLADCallback
from torch_bgdebias.clad.paired import as_vectors
from torch_bgdebias.swap import BackgroundSwap


@pytest.mark.parametrize("joint", [False, True])
def test_equals_a_plain_loop(joint):
    modules = [theirs(), theirs()]
    for module in modules:
        module.net = network()
    callback = CLADCallback(BackgroundSwap(), BatchSpec(), plus=True, num_negatives=4, joint=joint)
    fit(modules[0], callback, train=loader(*volumes()), max_epochs=1)
    expected = by_hand(modules[1], loader(*volumes()), classes=3, plus=True, joint=joint, num_negatives=4)
    assert [float(x) for x in modules[0].totals] == pytest.approx(expected, rel=1e-6)


def test_swapping_alone_trains():
    module = theirs()
    module.net = network()
    run = fit(module, BackgroundSwapCallback(BackgroundSwap(pattern="voronoi"), BatchSpec()), train=loader(*volumes()))
    assert float(run.callback_metrics["background_swap/fraction"]) == 1


def test_maps_of_volumes_are_averaged():
    maps = torch.rand(2, 3, 4, 5, 6)
    torch.testing.assert_close(as_vectors(maps, 2, "head"), maps.mean((2, 3, 4)))
