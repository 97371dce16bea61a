"""The pass over the data: order and batches do not matter, nothing of the model or the global state changes."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from probe_toy import Reader, ToyImages, cheat, same_images, toy_loader
from torch.utils.data import DataLoader

from torch_bgdebias.probe import evaluate_background_bias

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def test_order_and_batch_size_do_not_matter() -> None:
    data = ToyImages(37)
    shuffled = DataLoader(data, batch_size=5, shuffle=True)
    reports = [
        evaluate_background_bias(cheat(), loader, variants=MIXED)
        for loader in (DataLoader(data, batch_size=1), DataLoader(data, batch_size=37), shuffled)
    ]
    same_images(reports[0], reports[1])
    same_images(reports[0], reports[2], but=("position",))
    assert reports[0].to_dict()["variants"] == reports[2].to_dict()["variants"]
    assert reports[0].bg_gap == reports[2].bg_gap


def test_images_without_partner_or_foreground_are_counted_and_left_out() -> None:
    data = ToyImages(9)  # class 0 three times, others twice
    data.labels[8] = 3
    data.labels[4] = 1  # class 0 once
    data.masks[1] = 0
    report = evaluate_background_bias(cheat(), DataLoader(data, batch_size=2), variants=["mixed_same", "only_fg"])
    assert report.counts["without_foreground"] == 1
    assert report.counts["without_partner_mixed_same"] == 1
    assert report.variants["mixed_same"].n_left_out == 2
    assert report.variants["mixed_same"].accuracy.n == 7
    assert report.variants["only_fg"].n_left_out == 1
    assert report.variants["original"].n_left_out == 0
    alone = int(np.flatnonzero(report.images.position == 0)[0])
    assert not report.images.valid("mixed_same")[alone]
    assert math.isnan(report.images.cosine["mixed_same"][alone])


def test_model_and_global_state_are_left_as_found() -> None:
    model = cheat().train()
    model.head.eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    evaluate_background_bias(model, DataLoader(ToyImages(), batch_size=8, shuffle=True))
    assert model.training
    assert model.norm.training
    assert not model.head.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002


def test_model_is_left_as_found_after_an_error() -> None:
    class Breaks(Reader):
        def forward(self, image):
            if self.training:
                raise AssertionError("evaluated in training mode")
            raise RuntimeError("broken")

    model = Breaks(0, 0, 0).train()
    with pytest.raises(RuntimeError, match="broken"):
        evaluate_background_bias(model, toy_loader())
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_progress_wraps_both_passes() -> None:
    seen = []

    def progress(batches, *, total, label):
        seen.append((label, total))
        return batches

    evaluate_background_bias(cheat(), toy_loader(), variants=["mixed_rand"], progress=progress)
    assert seen == [("backgrounds", 6), ("images", 6)]
