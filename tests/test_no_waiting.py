"""A training step never waits for the device, and gives on it what it gives on the CPU."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import pytorch_lightning as pl
import small_training
import torch
from accelerator import HostWaitError, SimulatedAccelerator
from torch import nn

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.callbacks import BackgroundSwapCallback, CLADCallback, ISNetCallback
from torch_bgdebias.clad import CLADLoss, NegativeQueue, clad_loss, clad_queue_loss
from torch_bgdebias.compositing import mean_fill, tile_fill
from torch_bgdebias.isnet import ISNetLoss
from torch_bgdebias.ops.plain import composite_plain
from torch_bgdebias.swap import BackgroundSwap

K, B, D, SIZE = 3, 8, 7, (8, 9)


@pytest.fixture
def batch(generator):
    image = torch.rand(B, 3, *SIZE, generator=generator)
    mask = torch.zeros(B, 1, *SIZE)
    mask[:, :, 2:6, 3:7] = torch.rand(B, 1, 4, 4, generator=generator)
    return image, mask, torch.arange(B) % K


WAITING = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).any()),
    "print": lambda x: f"{x.sum()}",
    "to the host": lambda x: x.cpu(),
    "copy to the host": lambda x: torch.zeros(3).copy_(x[0]),
    "from the host": lambda x: x + torch.zeros(3).to(x.device),
    "a tensor of numbers": lambda x: torch.tensor([1.0], device=x.device),
    "a new tensor": lambda x: x.new_tensor([1.0]),
    "mask": lambda x: x[x > 0],
    "write by mask": lambda x: x.index_put_((x > 0,), x.new_ones(6)),
    "list of positions": lambda x: x[[0, 1]],
    "nonzero": lambda x: x.nonzero(),
    "unique": torch.unique,
    "equal": lambda x: torch.equal(x, x.clone()),  # a tensor and itself are not compared
    "repeat": lambda x: torch.repeat_interleave(x, torch.ones(2, dtype=torch.long, device=x.device), 0),
    "one draw": lambda x: torch.multinomial(x.abs(), 1),
}


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_found(accelerator, name):
    if name == "one draw" and not isinstance(accelerator, SimulatedAccelerator):
        pytest.skip("some versions of torch read the weights back, others assert on the device")
    x = accelerator.put(torch.ones(2, 3))
    WAITING[name](x)  # outside it is allowed
    error = HostWaitError if isinstance(accelerator, SimulatedAccelerator) else RuntimeError
    with accelerator.no_waiting(), pytest.raises(error):
        WAITING[name](x)


def test_what_does_not_wait_is_let_through(accelerator):
    x = accelerator.put(torch.randn(4, 3, requires_grad=True))
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    nn.init.constant_(network[-1].bias, -9.0)  # outputs below zero, whatever the weights: their gradient passes
    network = accelerator.put(network)
    with accelerator.no_waiting():
        y = torch.where(network(x) > 0, 1.0, network(x))
        y[y > 0] = 2.0
        y.index_select(0, torch.arange(2, device=x.device)).sum().backward()
    assert accelerator.get(x.grad).abs().sum() > 0


@pytest.mark.parametrize("keys", [K, 4 * B], ids=["fewer queues than anchors", "more queues than anchors"])
def test_clad(accelerator, generator, keys):
    ours, theirs = accelerator.put(CLADLoss(keys, num_negatives=4)), CLADLoss(keys, num_negatives=4)
    for _ in range(3):
        anchor, positive = (torch.randn(B, D, generator=generator, requires_grad=True) for _ in range(2))
        label = torch.randint(K, (B,), generator=generator)
        inputs = (anchor, positive, label, (label + 1) % K, label)
        there = accelerator.put(inputs)
        with accelerator.no_waiting():
            value = ours(*there)
            value.backward()
        expected = theirs(*inputs)
        expected.backward()
        torch.testing.assert_close(accelerator.get(value), expected.detach())
        for x, y in zip(there[:2], inputs[:2], strict=True):
            torch.testing.assert_close(accelerator.get(x.grad), y.grad)
    for name, buffer in theirs.state_dict().items():
        assert torch.equal(accelerator.get(ours.state_dict()[name]), buffer)


def test_clad_functions_and_queue(accelerator, generator):
    anchor, positive = (torch.randn(B, D, generator=generator, requires_grad=True) for _ in range(2))
    label = torch.randint(-1, K, (B,), generator=generator)
    a, p, key = accelerator.put((anchor, positive, label))
    queue = accelerator.put(NegativeQueue(K, 4))
    with accelerator.no_waiting():
        queue.enqueue(p, key, key)
        rows, valid = queue.negatives(key, key)
        clad_loss(a, p, rows, valid).backward()
        clad_queue_loss(a, p, queue.rows, key, valid).backward()
        queue.in_order()
        queue.reset()
    assert accelerator.get(a.grad).isfinite().all()


def test_rows_that_are_not_finite_are_left_out_where_looking_would_wait(accelerator):
    queue = accelerator.put(NegativeQueue(2, 4, 1))
    rows, label = accelerator.put((torch.tensor([[1.0], [torch.nan], [torch.inf], [2.0]]), torch.tensor([0, 0, 1, 0])))
    with accelerator.no_waiting():
        queue.enqueue(rows, label)
    assert accelerator.get(queue.rows)[:, :, 0].tolist() == [[1, 2, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
@pytest.mark.parametrize("source", ["batch", "bank"])
@pytest.mark.parametrize("fill", ["tile", "mean"])
def test_swap(accelerator, batch, generator, pattern, source, fill):
    images = (torch.rand(9, 3, 11, 10, generator=generator) * 255).to(torch.uint8)

    def swap():
        bank = BackgroundBank(images.clone(), torch.arange(9) % K, mean=[0.5] * 3, std=[0.2] * 3)
        return BackgroundSwap("batch" if source == "batch" else bank, pattern, 3, fill=fill)

    ours, there = swap().to(accelerator.device), accelerator.put(batch)
    draws = torch.Generator(accelerator.device).manual_seed(0)
    with accelerator.no_waiting():
        swapped = ours(*there, generator=draws)[0]
    if isinstance(accelerator, SimulatedAccelerator):  # CUDA draws other numbers
        expected = swap()(*batch, generator=torch.Generator().manual_seed(0))[0]
        torch.testing.assert_close(accelerator.get(swapped), expected)


def test_compositing(accelerator, batch):
    image, mask, label = accelerator.put(batch)
    image.requires_grad_()
    with accelerator.no_waiting():
        (tile_fill(image, mask) + mean_fill(image, mask)).sum().backward()
        params = BackgroundSwap(pattern="voronoi").generate_parameters(image.shape, label)
        plain = composite_plain(
            image, mask, image.detach(), params["sites"].double(), params["index"], params["offset"]
        )
    assert accelerator.get(plain).isfinite().all()
    filled, there = (x.detach() for x in (tile_fill(*batch[:2]), tile_fill(image, mask)))
    torch.testing.assert_close(accelerator.get(there), filled)


def test_heatmap_loss(accelerator, batch, generator):
    relevance = torch.randn(B, 2, 3, *SIZE, generator=generator, requires_grad=True)
    hidden = torch.randn(B, 2, 5, 4, 4, generator=generator)
    r, m, h = accelerator.put((relevance, batch[1], hidden))
    loss = ISNetLoss(mask_dilation=1, layer_decay=0.5)
    with accelerator.no_waiting():
        value = loss(r, m, {"layer": h})
        value.backward()
    expected = loss(relevance, batch[1], {"layer": hidden})
    expected.backward()
    torch.testing.assert_close(accelerator.get(value), expected.detach())
    torch.testing.assert_close(accelerator.get(r.grad), relevance.grad)


class NoWaiting(pl.Callback):
    """From the batch's arrival to its end: training step, backward pass, optimiser and logging."""

    def __init__(self, accelerator):
        self.accelerator, self.stack = accelerator, ExitStack()

    def on_train_batch_start(self, *_):
        self.stack.enter_context(self.accelerator.no_waiting())

    def on_train_batch_end(self, *_):
        self.stack.close()

    def on_exception(self, *_):
        self.stack.close()


class Looking(pl.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        float(next(pl_module.parameters()).grad.sum())


def fit(batch, callbacks, **options):
    torch.manual_seed(0)
    module = small_training.Module(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(168, K)), lr=0.1
    )
    image, mask, label = (x.repeat(2, *[1] * (x.ndim - 1)) for x in batch)
    train = small_training.loader(image, label, mask, batch_size=B)
    small_training.fit(module, *callbacks, train=train, **{"accelerator": "auto", **options})
    return torch.stack(module.totals)


def bank():
    images = torch.rand(9, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    return BackgroundBank(images, torch.arange(9) % K)


CALLBACKS = {
    "swap": lambda: BackgroundSwapCallback(BackgroundSwap(pattern="voronoi")),
    "swap from a bank": lambda: BackgroundSwapCallback(BackgroundSwap(bank()), schedule=lambda epoch, step: 0.5),
    "CLAD": lambda: CLADCallback(BackgroundSwap(), num_negatives=4),
    "CLAD+ jointly, from a bank": lambda: CLADCallback(BackgroundSwap(bank()), plus=True, joint=True),
    "ISNet, selective": lambda: ISNetCallback("selective"),
    "ISNet, stochastic": lambda: ISNetCallback("stochastic", deep_supervision=["net.2"]),
    "ISNet, dual, on a part": lambda: ISNetCallback("dual", fraction=0.5),
    "ISNet, original, z^B": lambda: ISNetCallback("original", input_rule="zbox"),
}


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_callbacks(accelerator, batch, name):
    strategy = accelerator.strategy()
    losses = accelerator.get(fit(batch, [NoWaiting(accelerator), CALLBACKS[name]()], strategy=strategy))
    assert losses.isfinite().all()
    if isinstance(accelerator, SimulatedAccelerator):  # CUDA draws other numbers
        torch.testing.assert_close(losses, fit(batch, [CALLBACKS[name]()], accelerator="cpu"), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_callback_that_looks_is_found(accelerator, batch):
    error = HostWaitError if isinstance(accelerator, SimulatedAccelerator) else RuntimeError
    with pytest.raises(error):
        fit(batch, [NoWaiting(accelerator), Looking()], strategy=accelerator.strategy())
