from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from torch_bgdebias.clad import CLADLoss

from .oracle import LoopCLAD


def batches(generator, steps=6, keys=4, dim=8, dtype=torch.float32):
    for _ in range(steps):
        size = int(torch.randint(2, 14, (), generator=generator))
        anchor, positive = torch.randn(2, size, dim, generator=generator, dtype=dtype)
        label = torch.randint(keys, (size,), generator=generator)
        other = (label + torch.randint(1, keys, (size,), generator=generator)) % keys
        yield anchor.requires_grad_(), positive.requires_grad_(), label, other


def test_reference_steps(vectors):
    arrays = {name: torch.as_tensor(value) for name, value in vectors("clad").items()}
    classes, size, dim, steps = (int(x) for x in arrays["meta"])
    loss = CLADLoss(classes, dim, size, float(arrays["tau"]))
    for slot in range(size):
        loss.queue.enqueue(arrays["queue/initial"][:, slot], torch.arange(classes))
    for step in range(steps):
        anchor, positive = arrays[f"{step}/anchor"], arrays[f"{step}/positive"]
        label, background, value = (arrays[f"{step}/{name}"] for name in ("label", "background_label", "loss"))
        grads, after = [arrays[f"{step}/grad_{name}"] for name in ("anchor", "positive")], arrays[f"{step}/queue_after"]
        anchor.requires_grad_()
        positive.requires_grad_()
        got = loss(anchor, positive, label, background)
        got.backward()
        assert got.item() == pytest.approx(float(value), rel=1e-5)
        for tensor, expected in zip((anchor, positive), grads, strict=True):
            assert (tensor.grad - expected).norm() / expected.norm() < 1e-5
        assert torch.equal(loss.queue.in_order()[0], after)


@pytest.mark.parametrize("keys", [4, 30])
def test_equals_the_loop_from_the_paper(generator, keys):
    loss, loop = CLADLoss(keys, num_negatives=3).double(), LoopCLAD(keys, 3)
    for anchor, positive, label, other in batches(generator, keys=keys, dtype=torch.float64):
        got, expected = loss(anchor, positive, label, other), loop(anchor, positive, label, other)
        torch.testing.assert_close(got, expected)
        wanted = torch.autograd.grad(expected, (anchor, positive), allow_unused=True)
        for ours, theirs in zip(torch.autograd.grad(got, (anchor, positive)), wanted, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_empty_queue_is_exactly_zero(generator):
    loss = CLADLoss(5)
    anchor, positive, label, _ = next(batches(generator))
    value = loss(anchor, positive, label, torch.full_like(label, 4))
    value.backward()
    assert value.item() == 0
    assert anchor.grad.abs().max() == positive.grad.abs().max() == 0


def test_positives_are_enqueued_before_the_loss(generator):
    loss = CLADLoss(2, num_negatives=1)
    anchor, positive, _, _ = next(batches(generator))
    n = len(anchor)
    label, background = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    label[0] = 1
    value = loss(anchor, positive, label, background)
    assert value.item() > 0
    assert torch.equal(loss.queue.rows[0, 0], positive[-1].detach())


def test_several_losses_before_one_backward_pass(generator):
    # gradient accumulation by hand: the queue moves on between forward and backward
    steps = list(batches(generator, steps=3))
    together, apart = CLADLoss(4, num_negatives=3), CLADLoss(4, num_negatives=3)
    sum(together(*step) for step in steps).backward()
    joint = [(a.grad.clone(), p.grad.clone()) for a, p, *_ in steps]
    for (a, p, *rest), (grad_a, grad_p) in zip(steps, joint, strict=True):
        a.grad = p.grad = None
        apart(a, p, *rest).backward()
        torch.testing.assert_close(a.grad, grad_a)
        torch.testing.assert_close(p.grad, grad_p)


def test_resumes_bit_for_bit(generator):
    steps = list(batches(generator, steps=6))
    loss = CLADLoss(4, num_negatives=3)
    for step in steps[:3]:
        loss(*step)
    saved = copy.deepcopy(loss.state_dict())
    expected = [loss(*step).item() for step in steps[3:]]
    resumed = CLADLoss(4, num_negatives=3)
    resumed.load_state_dict(saved)
    assert [resumed(*step).item() for step in steps[3:]] == expected


def test_inside_a_module_of_ones_own(generator):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.clad = nn.Linear(8, 8), CLADLoss(4)

    network = Network()
    (anchor, positive, label, other) = next(batches(generator))
    network.clad(network.linear(anchor), network.linear(positive), label, other).backward()
    assert network.linear.weight.grad.isfinite().all()
    copied = Network()
    copied.load_state_dict(network.state_dict())
    assert torch.equal(copied.clad.queue.rows, network.clad.queue.rows)


def test_evaluation_mode_only_reads(generator):
    first, second = batches(generator, steps=2)
    loss = CLADLoss(4)
    loss(*first)
    before = copy.deepcopy(loss.state_dict())
    value = loss.eval()(*second)
    assert value.item() > 0
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())
    unsized = CLADLoss(4).eval()
    assert unsized(*second).item() == 0  # nothing to read yet
    assert unsized.queue.dim is None


def test_one_class_only(generator):
    # every sample of class 0, no background of another class: kept originals with background_label = label
    loss = CLADLoss(3)
    anchor, positive, label, _ = next(batches(generator))
    zero = torch.zeros_like(label)
    assert loss(anchor, positive, zero, zero, foreground=zero).item() == 0  # no other foreground, nothing to contrast
    assert loss(anchor, positive, zero, zero).item() > 0  # the paper's rule does not look at the foreground


def test_the_key_may_be_any_nuisance_label(generator):
    # two sites, three classes: same site and another class are negatives, and only they
    loss = CLADLoss(2, num_negatives=50, temperature=1.0).double()
    anchor, positive = torch.randn(2, 40, 6, generator=generator, dtype=torch.float64)
    foreground = torch.randint(3, (40,), generator=generator)
    site = torch.randint(2, (40,), generator=generator)
    value = loss(anchor, positive, site, 1 - site, foreground=foreground)
    a, p = (nn.functional.normalize(x, dim=1) for x in (anchor, positive))
    expected = []
    for i in range(40):
        rows = p[(1 - site == site[i]) & (foreground != foreground[i])]
        logits = torch.cat([(a[i] @ p[i])[None], rows @ a[i]])
        expected.append(logits.logsumexp(0) - logits[0])
    torch.testing.assert_close(value, torch.stack(expected).mean())
    unknown = torch.full_like(site, -1)
    assert loss(anchor, positive, unknown, unknown, foreground=foreground).item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(generator, dtype):
    network = nn.Linear(8, 8)
    loss = CLADLoss(4)
    for anchor, positive, label, other in batches(generator):
        with torch.autocast("cpu", dtype):
            value = loss(network(anchor), network(positive), label, other)
        value.backward()
        assert value.dtype == loss.queue.rows.dtype == torch.float32
    assert value.isfinite()
    assert network.weight.grad.isfinite().all()


def test_compiles_without_graph_breaks(generator):
    loss, twin = CLADLoss(4, 8, 3), CLADLoss(4, 8, 3)
    step = torch.compile(twin, backend="eager", fullgraph=True)
    for batch in batches(generator, steps=2):
        torch.testing.assert_close(step(*batch), loss(*batch))


def test_step_on_the_device_does_not_wait(device):
    loss = CLADLoss(4, 8, 3).to(device)
    anchor, positive = torch.randn(2, 6, 8, device=device, requires_grad=True)
    label = torch.tensor([0, 1, 2, 3, 0, 1], device=device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(anchor, positive, label, label.roll(1))
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert value.isfinite()


def test_memory_does_not_grow_with_copies_per_sample():
    # 64 anchors over queues of 512 rows of 256: a copy of negatives per anchor would be 33 MB
    loss = CLADLoss(2, 256, 512)
    anchor, positive = (torch.randn(64, 256, requires_grad=True) for _ in range(2))
    label = torch.arange(64) % 2
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        loss(anchor, positive, label, 1 - label).backward()
    assert max(saved) <= loss.queue.rows.numel()


def test_bad_input_is_named(generator):
    loss = CLADLoss(4, 8)
    anchor, positive, label, other = next(batches(generator))
    broken = positive.detach().clone()
    broken[1, 0] = math.nan
    cases = [
        (ValueError, r"label: expected classes in \[0, 3\], got", lambda: loss(anchor, positive, label + 4, other)),
        (
            ValueError,
            r"label: expected classes in \[0, 3\], got \[-1",
            lambda: loss(anchor, positive, label * 0 - 1, other),
        ),
        (
            ValueError,
            r"background_label: expected classes in \[0, 3\]",
            lambda: loss(anchor, positive, label, other + 4),
        ),
        (
            ValueError,
            r"positive: expected finite values.*sample\(s\) \[1\]",
            lambda: loss(anchor, broken, label, other),
        ),
        (
            ValueError,
            r"anchor: expected finite values.*sample\(s\) \[1\]",
            lambda: loss(broken, positive, label, other),
        ),
        (ValueError, r"anchor: expected width 8", lambda: loss(anchor[:, 1:], positive, label, other)),
        (ValueError, r"positive: expected width 8", lambda: loss(anchor, positive[:, 1:], label, other)),
        (ValueError, r"temperature: expected a finite number above 0, got 0", lambda: CLADLoss(4, temperature=0)),
        (ValueError, r"size: expected a whole number of at least 1, got 0", lambda: CLADLoss(4, num_negatives=0)),
        (ValueError, r"num_classes: expected a whole number of at least 1, got 0", lambda: CLADLoss(0)),
    ]
    for error, text, call in cases:
        with pytest.raises(error, match=text):
            call()


def test_widths_may_not_change(generator):
    loss = CLADLoss(4)
    anchor, positive, label, other = next(batches(generator))
    loss(anchor, positive, label, other)
    with pytest.raises(ValueError, match="anchor: expected width 8, got .* 5"):
        loss(anchor[:, :5], positive[:, :5], label, other)


@pytest.mark.parametrize(("exponent", "dtype"), [(19, torch.float32), (30, torch.float32), (200, torch.float64)])
def test_embeddings_too_long_for_cosines_are_refused_by_name(exponent, dtype):
    """Finite, but their products are not: the loss was NaN."""
    label, embedding = torch.arange(4), torch.randn(4, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))
    loss = CLADLoss(4)
    loss(embedding, embedding, label, label.roll(1))
    longest = torch.finfo(dtype).max ** 0.5 / 2
    assert loss(embedding * longest / 6, embedding, label, label.roll(1)).isfinite()
    with pytest.raises(ValueError, match=r"positive: expected embeddings of a length up to .*; normalise them"):
        loss(embedding, embedding * 10.0**exponent, label, label.roll(1))
    loss.eval()
    with pytest.raises(
        ValueError, match=r"anchor: expected embeddings of a length up to .* in sample\(s\) \[0, 1, 2, 3\]"
    ):
        loss(embedding * 10.0**exponent, embedding, label, label.roll(1))
