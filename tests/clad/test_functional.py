from __future__ import annotations

import math

import pytest
import torch

from torch_bgdebias.clad import clad_loss, clad_queue_loss

from .oracle import log1p_exp, loss_of_one


def draw(generator, batch=5, negatives=4, dim=7, dtype=torch.float64):
    shape = ((batch, dim), (batch, dim), (batch, negatives, dim))
    return [torch.randn(s, generator=generator, dtype=dtype) for s in shape]


def test_equals_the_loop_from_the_paper(generator):
    anchor, positive, negatives = draw(generator)
    valid = torch.rand(5, 4, generator=generator) > 0.4
    valid[2] = False
    expected = [loss_of_one(anchor[i], positive[i], list(negatives[i][valid[i]]), temperature=0.3) for i in range(5)]
    each = clad_loss(anchor, positive, negatives, valid, 0.3, reduction="none")
    torch.testing.assert_close(each, torch.stack(expected))
    torch.testing.assert_close(clad_loss(anchor, positive, negatives, valid, 0.3), each.mean())
    torch.testing.assert_close(clad_loss(anchor, positive, negatives, valid, 0.3, reduction="sum"), each.sum())


def test_gradients_equal_finite_differences(generator):
    tensors = [x.requires_grad_() for x in draw(generator, batch=3, negatives=3, dim=4)]
    valid = torch.tensor([[True, False, True], [True] * 3, [False] * 3])
    assert torch.autograd.gradcheck(lambda a, p, n: clad_loss(a, p, n, valid, 0.5), tensors)
    assert torch.autograd.gradgradcheck(lambda a, p, n: clad_loss(a, p, n, valid, 0.5), tensors)


def test_the_unknown_key_has_no_negatives(generator):
    anchor, positive, _ = draw(generator)
    rows = torch.randn(2, 4, 7, generator=generator, dtype=torch.float64)
    label = torch.tensor([0, -1, 1, -1, 0])
    each = clad_queue_loss(anchor, positive, rows, label, torch.ones(5, 4, dtype=torch.bool), reduction="none")
    assert (each == 0).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("temperature", [1e-3, 0.2, 1e3])
@pytest.mark.parametrize("negatives", [0, 3])
def test_no_valid_negative_is_exactly_zero(generator, temperature, negatives):
    anchor, positive, rows = draw(generator, negatives=negatives, dtype=torch.float32)
    anchor.requires_grad_()
    positive.requires_grad_()
    rows.fill_(math.nan)  # what a missing negative holds must not matter
    value = clad_loss(anchor, positive, rows, torch.zeros(5, negatives, dtype=torch.bool), temperature)
    value.backward()
    assert value.item() == 0
    assert anchor.grad.abs().max() == 0
    assert positive.grad.abs().max() == 0


def test_missing_negatives_may_hold_nan(generator):
    anchor, positive, rows = draw(generator, dtype=torch.float32)
    valid = torch.ones(5, 4, dtype=torch.bool)
    valid[:, 1] = False
    expected = clad_loss(anchor, positive, rows[:, [0, 2, 3]])
    rows[:, 1] = math.nan
    anchor.requires_grad_()
    value = clad_loss(anchor, positive, rows, valid)
    value.backward()
    torch.testing.assert_close(value.detach(), expected)
    assert anchor.grad.isfinite().all()


def test_known_limits():
    x, y = torch.eye(2)
    opposite = torch.stack([-x])[None]
    # anchor = positive and an opposite negative: log(1 + exp(-2 / t)); orthogonal: log(1 + exp(-1 / t))
    for t in (0.2, 1.0, 7.0):
        assert clad_loss(x[None], x[None], opposite, temperature=t).item() == pytest.approx(log1p_exp(-2 / t), abs=1e-6)
        assert clad_loss(x[None], x[None], y[None, None], temperature=t).item() == pytest.approx(
            log1p_exp(-1 / t), abs=1e-6
        )
    # negatives equal to the positive: log(1 + N), at any temperature
    same = x.expand(1, 5, 2)
    for t in (1e-4, 0.2, 1e4):
        assert clad_loss(x[None], x[None], same, temperature=t).item() == pytest.approx(math.log(6), rel=1e-6)
    # hot: every similarity counts the same; cold: the margin over t, or 0
    assert clad_loss(x[None], x[None], opposite, temperature=1e8).item() == pytest.approx(math.log(2), rel=1e-6)
    assert clad_loss(x[None], x[None], opposite, temperature=1e-6).item() == 0
    assert clad_loss(-x[None], x[None], -x[None, None], temperature=1e-3).item() == pytest.approx(2000, rel=1e-6)


def test_scale_does_not_matter_and_zero_is_defined(generator):
    anchor, positive, negatives = draw(generator)
    scaled = clad_loss(anchor * 1e3, positive * 1e-3, negatives * 7)
    torch.testing.assert_close(scaled, clad_loss(anchor, positive, negatives))
    zero = torch.zeros(5, 7, dtype=torch.float64, requires_grad=True)
    value = clad_loss(zero, positive, negatives)
    value.backward()
    assert value.item() == pytest.approx(math.log(5))  # similarity 0 with everything
    assert zero.grad.abs().max() == 0


def test_empty_batch_is_zero():
    empty = torch.zeros(0, 3, requires_grad=True)
    value = clad_loss(empty, empty, torch.zeros(0, 4, 3))
    value.backward()
    assert value.item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_low_precision_compute_in_float32(generator, dtype):
    anchor, positive, negatives = (x.to(dtype) for x in draw(generator, batch=8, negatives=8, dim=64))
    full = clad_loss(anchor.float(), positive.float(), negatives.float())
    rows, label = negatives.transpose(0, 1).contiguous(), torch.arange(8)
    valid = torch.ones(8, 8, dtype=torch.bool)
    with torch.autocast("cpu", dtype):
        value = clad_loss(anchor, positive, negatives)
        queued = clad_queue_loss(anchor, positive, rows.transpose(0, 1).contiguous(), label, valid)
    assert value.dtype == queued.dtype == torch.float32
    torch.testing.assert_close(value, full, rtol=0, atol=1e-6)
    torch.testing.assert_close(queued, full, rtol=0, atol=1e-6)


def test_float64_stays_float64_under_autocast(generator):
    with torch.autocast("cpu", torch.bfloat16):
        assert clad_loss(*draw(generator)).dtype == torch.float64


def test_compiles_without_graph_breaks(generator):
    anchor, positive, negatives = draw(generator, dtype=torch.float32)
    compiled = torch.compile(clad_loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(anchor, positive, negatives), clad_loss(anchor, positive, negatives))


def test_bad_input_is_named(generator):
    anchor, positive, negatives = draw(generator)
    broken = anchor.clone()
    broken[3, 1] = math.nan
    flag = torch.ones(5, 4, dtype=torch.bool)
    rows, label = torch.ones(2, 4, 7, dtype=torch.float64), torch.zeros(5, dtype=torch.long)
    cases = [
        (
            ValueError,
            r"anchor: expected finite values.*sample\(s\) \[3\]",
            lambda: clad_loss(broken, positive, negatives),
        ),
        (ValueError, r"positive: expected finite.*\[3\]", lambda: clad_loss(anchor, broken, negatives)),
        (ValueError, r"negatives: expected finite", lambda: clad_loss(anchor, positive, negatives * math.inf)),
        (
            ValueError,
            r"positive: expected width 7, got .*\(5, 6\)",
            lambda: clad_loss(anchor, positive[:, 1:], negatives),
        ),
        (ValueError, r"positive: expected shape \(5, 7\)", lambda: clad_loss(anchor, positive[1:], negatives)),
        (ValueError, r"negatives: expected shape \(5, N, 7\)", lambda: clad_loss(anchor, positive, negatives[0])),
        (TypeError, r"negatives: expected a float tensor", lambda: clad_loss(anchor, positive, negatives.long())),
        (TypeError, r"anchor: expected a float tensor", lambda: clad_loss(anchor.long(), positive, negatives)),
        (ValueError, r"anchor: expected shape \(B, D\)", lambda: clad_loss(anchor[0], positive, negatives)),
        (TypeError, r"valid: expected a bool tensor", lambda: clad_loss(anchor, positive, negatives, flag.int())),
        (ValueError, r"valid: expected shape \(5, 4\)", lambda: clad_loss(anchor, positive, negatives, flag[:, 1:])),
        (ValueError, r"reduction: expected one of", lambda: clad_loss(anchor, positive, negatives, reduction="max")),
        (
            ValueError,
            r"label: expected classes in \[0, 1\].*got \[2, 2\]",
            lambda: clad_queue_loss(anchor, positive, rows, label + 2, flag),
        ),
        (
            TypeError,
            r"label: expected integer classes",
            lambda: clad_queue_loss(anchor, positive, rows, label.float(), flag),
        ),
        (
            ValueError,
            r"anchor: expected width 6",
            lambda: clad_queue_loss(anchor, positive, rows[..., 1:], label, flag),
        ),
        (TypeError, r"rows: expected a float tensor", lambda: clad_queue_loss(anchor, positive, rows[0], label, flag)),
        (
            ValueError,
            r"valid: expected a bool tensor",
            lambda: clad_queue_loss(anchor, positive, rows, label, flag[1:]),
        ),
    ]
    for error, text, call in cases:
        with pytest.raises(error, match=text):
            call()
    for temperature in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature: expected a finite number above 0"):
            clad_loss(anchor, positive, negatives, temperature=temperature)
