from __future__ import annotations

import copy
import math
from collections import deque

import pytest
import torch

from torch_bgdebias.clad import NegativeQueue, clad_loss


def rows_of(queue, key):
    rows, filled = queue.in_order()
    return rows[key][filled[key]].flatten().tolist()


def test_equals_lists_over_many_batches(generator):
    queue, lists = NegativeQueue(4, 5, 1), [deque(maxlen=5) for _ in range(4)]
    count = 0
    for batch in [1, 3, 40, 7, 0, 12, 2] * 4:
        labels = torch.randint(-1, 4, (batch,), generator=generator)
        values = torch.arange(count, count + batch, dtype=torch.float32)
        count += batch
        queue.enqueue(values[:, None], labels)
        for value, label in zip(values.tolist(), labels.tolist(), strict=True):
            if label >= 0:
                lists[label].append(value)
        assert [rows_of(queue, key) for key in range(4)] == [list(rows) for rows in lists]
        assert queue.fill.tolist() == [len(rows) for rows in lists]


def test_batch_larger_than_the_queue_keeps_the_newest_in_order():
    queue = NegativeQueue(3, 4, 1)
    queue.enqueue(torch.tensor([[-1.0], [-2.0]]), torch.tensor([1, 1]))
    queue.enqueue(torch.arange(11.0)[:, None], torch.ones(11, dtype=torch.long))
    assert rows_of(queue, 1) == [7, 8, 9, 10]
    assert rows_of(queue, 0) == rows_of(queue, 2) == []
    assert queue.rows[[0, 2]].abs().max() == 0  # what was not kept went nowhere


def test_negatives_and_their_mask():
    queue = NegativeQueue(3, 2, 1)
    queue.enqueue(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 2, 0]), torch.tensor([1, 1, 2]))
    rows, valid = queue.negatives(torch.tensor([0, 1, 2, -1]))
    assert rows.shape == (4, 2, 1)
    assert valid.tolist() == [[True, True], [False, False], [True, False], [False, False]]
    _, valid = queue.negatives(torch.tensor([0, 0, 0]), foreground=torch.tensor([1, 2, -1]))
    assert valid.tolist() == [[False, True], [True, False], [True, True]]


def test_unfilled_slots_are_zeros_and_nothing_is_random():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    queue = NegativeQueue(2, 3, 4)
    assert queue.rows.abs().max() == 0
    assert torch.equal(state, torch.get_rng_state())


def test_unknown_background_is_skipped_and_reset_forgets():
    queue = NegativeQueue(2, 3, 1)
    queue.enqueue(torch.tensor([[1.0], [2.0]]), torch.tensor([-1, 1]))
    assert rows_of(queue, 1) == [2.0]
    queue.reset()
    assert queue.fill.tolist() == [0, 0]
    assert (queue.rows == 0).all()
    assert (queue.foreground == -1).all()
    assert not queue.negatives(torch.tensor([1]))[1].any()


def test_buffers_only_and_no_graph_is_kept():
    queue = NegativeQueue(2, 3, 4)
    assert list(queue.parameters()) == []
    assert set(queue.state_dict()) == {"rows", "foreground", "position", "fill"}
    queue.enqueue(torch.randn(2, 4, requires_grad=True), torch.tensor([0, 1]))
    assert not queue.rows.requires_grad


def test_a_copy_from_a_state_dict_goes_on_equally(generator):
    queue = NegativeQueue(3, 4)
    for _ in range(3):
        queue.enqueue(torch.randn(5, 2, generator=generator), torch.randint(3, (5,), generator=generator))
    restored = NegativeQueue(3, 4)  # sized by the checkpoint
    restored.load_state_dict(copy.deepcopy(queue.state_dict()))
    batch, label = torch.randn(7, 2, generator=generator), torch.randint(3, (7,), generator=generator)
    for each in (queue, restored):
        each.enqueue(batch, label)
    for ours, theirs in zip(queue.state_dict().values(), restored.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_sized_by_the_first_embeddings():
    queue = NegativeQueue(2, 3)
    assert queue.dim is None
    fresh = NegativeQueue(2, 3)
    fresh.load_state_dict(queue.state_dict())  # saved before the first batch
    queue.enqueue(torch.ones(1, 5, dtype=torch.float64), torch.tensor([1]))
    assert queue.dim == 5
    assert queue.rows.dtype == torch.float64
    with pytest.raises(RuntimeError, match="size mismatch"):
        NegativeQueue(2, 3, 4).load_state_dict(queue.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        NegativeQueue(2, 4).load_state_dict(queue.state_dict())


def test_low_precision_embeddings_are_stored_as_float32():
    queue = NegativeQueue(2, 3)
    queue.enqueue(torch.ones(1, 5, dtype=torch.bfloat16), torch.tensor([1]))
    assert queue.rows.dtype == torch.float32


@pytest.mark.parametrize("dim", [None, 3])
@pytest.mark.parametrize("use", ["enqueue", "reset", "load"])
def test_a_queue_that_was_made_in_inference_mode_serves_outside_of_it(dim, use):
    batch, label = torch.rand(2, 3), torch.tensor([0, 1])
    with torch.inference_mode():
        queue = NegativeQueue(2, 4, dim)
        queue.enqueue(batch, label)
    expected = NegativeQueue(2, 4, 3)
    if use == "reset":
        queue.reset()
    elif use == "load":
        queue.load_state_dict(expected.state_dict())
    else:
        queue.enqueue(batch, label)
        expected.enqueue(batch, label)
        expected.enqueue(batch, label)
    assert all(torch.equal(*pair) for pair in zip(queue.buffers(), expected.buffers(), strict=True))
    anchor = torch.rand(2, 3, requires_grad=True)
    clad_loss(anchor, batch, *queue.negatives(label)).backward()
    assert anchor.grad.isfinite().all()


def test_compiles_without_graph_breaks(generator):
    queue, twin = NegativeQueue(3, 4, 2), NegativeQueue(3, 4, 2)
    step = torch.compile(twin.enqueue, backend="eager", fullgraph=True)
    for _ in range(3):
        batch, label = torch.randn(6, 2, generator=generator), torch.randint(-1, 3, (6,), generator=generator)
        queue.enqueue(batch, label)
        step(batch, label)
    assert torch.equal(queue.rows, twin.rows)


def test_works_on_the_device_without_waiting_for_it(device):
    queue = NegativeQueue(3, 4, 2).to(device)
    label = torch.tensor([0, 1, 1, -1], device=device)
    batch = torch.randn(4, 2, device=device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        queue.enqueue(batch, label)
        rows, valid = queue.negatives(label)
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert rows.device.type == valid.device.type == device.type
    assert queue.fill.tolist() == [1, 2, 0]


def test_bad_input_is_named():
    queue = NegativeQueue(3, 4, 2)
    batch, label = torch.ones(3, 2), torch.tensor([0, 1, 2])
    broken = batch.clone()
    broken[1, 0] = math.inf
    cases = [
        (ValueError, r"embedding: expected finite values.*sample\(s\) \[1\]", lambda: queue.enqueue(broken, label)),
        (
            ValueError,
            r"background_label: expected classes in \[0, 2\].*got \[1, 3\]",
            lambda: queue.enqueue(batch, label + 1),
        ),
        (ValueError, r"background_label: .*got \[-2, 0\]", lambda: queue.enqueue(batch, label - 2)),
        (ValueError, r"background_label: expected shape \(3,\)", lambda: queue.enqueue(batch, label[1:])),
        (TypeError, r"background_label: expected integer", lambda: queue.enqueue(batch, label.float())),
        (ValueError, r"embedding: expected width 2, got .*\(3, 5\)", lambda: queue.enqueue(torch.ones(3, 5), label)),
        (TypeError, r"embedding: expected a float tensor", lambda: queue.enqueue(batch.long(), label)),
        (ValueError, r"foreground: expected shape \(3,\)", lambda: queue.enqueue(batch, label, label[1:])),
        (ValueError, r"label: expected classes in \[0, 2\]", lambda: queue.negatives(label + 1)),
        (ValueError, r"num_classes: expected a whole number of at least 1, got 0", lambda: NegativeQueue(0, 4)),
        (ValueError, r"size: expected a whole number of at least 1, got 2.5", lambda: NegativeQueue(3, 2.5)),
        (ValueError, r"dim: expected a whole number of at least 1, got -1", lambda: NegativeQueue(3, 4, -1)),
        (
            ValueError,
            r"max_batch: expected a whole number of at least 1, got 0",
            lambda: NegativeQueue(3, 4, max_batch=0),
        ),
    ]
    for error, text, call in cases:
        with pytest.raises(error, match=text):
            call()
    assert queue.fill.tolist() == [0, 0, 0]  # a refused batch leaves no trace


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: s["fill"].fill_(10**6), r"fill: expected values in \[0, 4\], got \[1000000, 1000000\]"),
        (lambda s: s["fill"].fill_(-5), r"fill: expected values in \[0, 4\], got \[-5, -5\]"),
        (lambda s: s["position"].fill_(-7), r"position: expected values in \[0, 3\], got \[-7, -7\]"),
        (lambda s: s["position"].fill_(3), r"position: expected the value of fill for queues that are not full"),
        (lambda s: s["rows"].fill_(math.nan), r"rows: expected finite embeddings"),
        (lambda s: s.update(fill=s["fill"].float()), r"fill: expected integers, got float32 tensor of shape \(3,\)"),
        (lambda s: s.update(foreground=s["foreground"] > 0), r"foreground: expected integers, got bool"),
    ],
)
def test_a_state_that_no_queue_has_is_refused_by_name(change, error):
    queue = NegativeQueue(3, 4, 2)
    queue.enqueue(torch.ones(3, 2), torch.tensor([0, 1, 1]))
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    state = {name: value.clone() for name, value in before.items()}
    change(state)
    with pytest.raises(ValueError, match=error):
        queue.load_state_dict(state)
    assert all(torch.equal(before[name], value) for name, value in queue.state_dict().items())
    with pytest.raises(ValueError, match=f"queue.{error}"):  # inside a loss, as a checkpoint names it
        torch.nn.ModuleDict({"queue": queue}).load_state_dict({f"queue.{name}": v for name, v in state.items()})
    queue.load_state_dict(before)
