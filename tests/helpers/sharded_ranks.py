"""One rank of a ``fully_shard`` training: python sharded_ranks.py HOST:PORT WORLD RANK same|uneven|dies."""

from __future__ import annotations

import datetime
import itertools
import os
import sys
import time
from collections.abc import Callable

import small_training as small
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from torch_bgdebias import BackgroundSwap, ISNet, ISNetLoss, evaluate_background_bias
from torch_bgdebias.clad import NegativeQueue, clad_loss
from torch_bgdebias.models import find_head, tap

Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def network() -> nn.Sequential:
    return small.network(norm=False)


def swap_loss(net: nn.Module, image: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    other = BackgroundSwap()(image, mask=mask, label=label, generator=torch.Generator().manual_seed(1))
    return F.cross_entropy(net(other), label)


def clad_plus(net: nn.Module, image: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """With other images of the batch for negatives: a queue would hold those of all ranks."""
    head, _ = find_head(net)
    generator = torch.Generator().manual_seed(1)
    other = BackgroundSwap()(image, mask=mask, label=label, different_class=True, generator=generator)
    with tap(net, [head]) as seen:
        loss = F.cross_entropy(net(image), label) + F.cross_entropy(net(other), label)
    anchor, positive = seen.inputs[head]
    return loss + clad_loss(anchor, positive, positive.detach().roll(1, 0)[:, None])


def isnet_loss(watching: bool, **options) -> Loss:
    def loss_of(net: nn.Module, image: Tensor, label: Tensor, mask: Tensor) -> Tensor:
        isnet, generator = ISNet(net, **options), torch.Generator().manual_seed(1)
        if watching:
            with isnet.watching() as watch:
                entropy = F.cross_entropy(net(image), label)
            explanation = watch.explain(create_graph=True, generator=generator)
        else:
            explanation = isnet.explain(image, create_graph=True, generator=generator)
            entropy = F.cross_entropy(explanation.logits, label)
        return entropy + ISNetLoss(mask_dilation=0)(explanation.relevance, mask, explanation.hidden)

    return loss_of


BOX = {"mean": [0.5] * 3, "std": [0.25] * 3}
LOSSES: dict[str, Loss] = {
    "swap": swap_loss,
    "clad+": clad_plus,
    "isnet": isnet_loss(False, variant="selective"),
    "isnet, stochastic, watching": isnet_loss(True, variant="stochastic", **BOX),
    "isnet, dual": isnet_loss(True, variant="dual", deep_supervision=["0"], **BOX),
}


def sharded(parts: bool) -> nn.Sequential:
    net = network()
    if parts:
        for layer in net:
            if next(layer.parameters(), None) is not None:
                fully_shard(layer)
    fully_shard(net)
    return net


def whole(net: nn.Module) -> Tensor:
    return torch.cat([(p.full_tensor() if isinstance(p, DTensor) else p).detach().flatten() for p in net.parameters()])


def trained(net: nn.Module, loss_of: Loss, batches: list) -> Tensor:
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    for image, label, mask in batches:
        loss = loss_of(net, image, label, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if hasattr(net, "reshard"):
        net.reshard()
    return whole(net)


def same(world: int, rank: int) -> None:
    batches, compared, outcomes = list(small.loader()), 0, []
    for name, loss_of in LOSSES.items():
        expected = trained(network(), loss_of, batches)
        outcomes.append(expected)
        for parts in (False, True):
            torch.testing.assert_close(trained(sharded(parts), loss_of, batches), expected, msg=f"{name} {parts}")
            compared += 1
    assert not any(torch.equal(one, two) for one, two in itertools.combinations(outcomes, 2)), (
        "each loss does something"
    )
    reports = [evaluate_background_bias(net, batches) for net in (sharded(True), network())]
    assert reports[0].bg_gap == reports[1].bg_gap
    assert {k: v.accuracy for k, v in reports[0].variants.items()} == {
        k: v.accuracy for k, v in reports[1].variants.items()
    }
    print(compared + 1, "compared")


def uneven(world: int, rank: int) -> None:
    """Rank r has r + 2 images of each batch."""
    batches = [tuple(x[: rank + 2] for x in batch) for batch in small.loader()]
    weights = [trained(sharded(True), loss_of, batches) for loss_of in LOSSES.values()]
    queue = NegativeQueue(small.CLASSES, 8)
    queue.enqueue(torch.full((rank + 2, 3), float(rank)), torch.zeros(rank + 2, dtype=torch.long))
    sums = [f"{float(w.double().sum()):.12f}" for w in weights]
    print("weights", *sums, "queue", int(queue.fill.sum()))


def dies(world: int, rank: int) -> None:
    net, batches = sharded(True), list(small.loader())
    trained(net, LOSSES["isnet"], batches)
    if rank == 1:
        os._exit(7)
    start = time.monotonic()
    try:
        trained(net, LOSSES["isnet"], batches)
    finally:
        print("waited", time.monotonic() - start, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    store, world, rank, what = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    wait = datetime.timedelta(seconds=20 if what == "dies" else 120)
    dist.init_process_group("gloo", init_method=f"tcp://{store}", world_size=world, rank=rank, timeout=wait)
    {"same": same, "uneven": uneven, "dies": dies}[what](world, rank)
    dist.destroy_process_group()
