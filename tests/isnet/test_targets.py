"""Which logit is explained: the lowest's log-odds, a drawn one, or what is asked for."""

from __future__ import annotations

import pytest
import torch
from isnet_networks import picture, small

from torch_bgdebias import ISNet


def test_selective_is_the_log_odds_of_the_lowest_logit():
    from torch_bgdebias.isnet.targets import lowest_log_odds

    logits = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    p = logits.softmax(1).amin(1)
    torch.testing.assert_close(lowest_log_odds(logits), (p / (1 - p)).log())
    torch.testing.assert_close(lowest_log_odds(logits, 1e-2), ((p + 1e-2) / (1 - p + 1e-2)).log())
    sharp = torch.tensor([[80.0, 0.0, -40.0]], requires_grad=True)  # p underflows in float32, the log-odds do not
    eta = lowest_log_odds(sharp)
    assert float(eta) == pytest.approx(-120.0)
    assert torch.autograd.grad(eta.sum(), sharp)[0].tolist() == [pytest.approx([-1.0, 0.0, 1.0])]
    assert torch.equal(lowest_log_odds(logits, multi_label=True), logits.amin(1))


def test_stochastic_chooses_the_highest_half_of_the_time():
    from torch_bgdebias.isnet.targets import random_logit

    logits = torch.zeros(20000, 4)
    logits[:, 2] = 1
    drawn = random_logit(logits, torch.Generator().manual_seed(0)).bincount(minlength=4) / 20000
    torch.testing.assert_close(drawn, torch.tensor([1 / 6, 1 / 6, 1 / 2, 1 / 6]), atol=0.012, rtol=0)
    assert random_logit(torch.zeros(3, 1)).tolist() == [0, 0, 0]
    isnet = ISNet(small().eval(), "stochastic")
    heatmaps = [isnet.explain(picture(), generator=torch.Generator().manual_seed(4)).relevance for _ in range(2)]
    assert torch.equal(*heatmaps)


def test_targets_override_the_choice():
    isnet, x = ISNet(small().eval(), "original"), picture()
    every = isnet.explain(x).relevance
    one = isnet.explain(x, torch.tensor([3, 0, 1])).relevance
    torch.testing.assert_close(one[:, 0], every[torch.arange(3), torch.tensor([3, 0, 1])])
    two = isnet.explain(x, torch.tensor([[3, 0], [0, 1], [1, 1]])).relevance
    torch.testing.assert_close(two[:, 0], one[:, 0])
    weights = torch.randn(3, 5)
    torch.testing.assert_close(
        isnet.explain(x, weights).relevance[:, 0], (every * weights[..., None, None, None]).sum(1)
    )
    torch.testing.assert_close(isnet.explain(x, lambda z: z[:, :2]).relevance, every[:, :2])
