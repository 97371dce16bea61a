"""The loss on queues as one operation: what gathered negatives give, whichever way it multiplies."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.clad import clad_loss, clad_queue_loss


def draw(generator, batch=5, negatives=4, dim=7, dtype=torch.float64):
    shape = ((batch, dim), (batch, dim), (batch, negatives, dim))
    return [torch.randn(s, generator=generator, dtype=dtype) for s in shape]


@pytest.mark.parametrize("keys", [2, 9], ids=["fewer queues than anchors", "more queues than anchors"])
def test_queues_give_what_gathered_negatives_give(generator, keys):
    anchor, positive, _ = draw(generator)
    rows = torch.randn(keys, 4, 7, generator=generator, dtype=torch.float64)
    label = torch.randint(keys, (5,), generator=generator)
    valid = torch.rand(5, 4, generator=generator) > 0.3
    results = []
    for loss, negatives in ((clad_loss, (rows[label],)), (clad_queue_loss, (rows, label))):
        a, p = anchor.clone().requires_grad_(), positive.clone().requires_grad_()
        value = loss(a, p, *negatives, valid, 0.2)
        results.append((value, *torch.autograd.grad(value, (a, p))))
    for gathered, queued in zip(*results, strict=True):
        torch.testing.assert_close(queued, gathered)
    inputs = (anchor.requires_grad_(), positive.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, p: clad_queue_loss(a, p, rows, label, valid, 0.2), inputs)


@pytest.mark.parametrize("keys", [2, 9])
def test_ways_of_multiplying_agree(generator, monkeypatch, keys):
    anchor, positive, _ = draw(generator)
    rows = torch.randn(keys, 4, 7, generator=generator, dtype=torch.float64)
    label, valid = torch.tensor([0, keys - 1, 1, 1, 0]), torch.ones(5, 4, dtype=torch.bool)
    anchor.requires_grad_()
    results = []
    for readable, chunk in ((True, 1), (False, 2**22), (False, 2 * 4 * 7), (False, 1)):
        monkeypatch.setattr("torch_bgdebias.clad.fused._CHUNK", chunk)
        monkeypatch.setattr("torch_bgdebias.clad.fused.values_readable", lambda tensor, answer=readable: answer)
        value = clad_queue_loss(anchor, positive, rows, label, valid)
        results.append((value, *torch.autograd.grad(value, anchor)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


@pytest.mark.parametrize("keys", [2, 9])
def test_rows_may_be_overwritten_before_the_backward_pass(generator, keys):
    anchor, positive, _ = draw(generator)
    rows = torch.randn(keys, 4, 7, generator=generator, dtype=torch.float64)
    label, valid = torch.randint(keys, (5,), generator=generator), torch.ones(5, 4, dtype=torch.bool)
    anchor.requires_grad_()
    expected = torch.autograd.grad(clad_queue_loss(anchor, positive, rows, label, valid), anchor)[0]
    value = clad_queue_loss(anchor, positive, rows, label, valid)
    rows.zero_()
    torch.testing.assert_close(torch.autograd.grad(value, anchor)[0], expected)
