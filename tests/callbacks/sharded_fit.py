"""Two processes, parameters sharded and replicated: python sharded_fit.py FOLDER [NAME]; Lightning starts the other."""

from __future__ import annotations

import sys
from pathlib import Path

import small_training as small
import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from torch_bgdebias import ISNetLoss

ModelParallelStrategy = small.package().strategies.ModelParallelStrategy


def configure_model(self):
    if self.device_mesh is None or isinstance(self.net[0].weight, DTensor):
        return
    mesh = self.device_mesh["data_parallel"]
    for part in (self.net[0], self.net[-1], self):
        fully_shard(part, mesh=mesh)


def fitted(name: str, strategy) -> torch.Tensor:
    module = small.theirs(configure_model=configure_model)
    module.net = small.network(norm=False)
    callback = (
        small.CALLBACKS[name]()
        if name != "isnet"
        else small.make_isnet(loss=ISNetLoss(mask_dilation=0), mean=[0.5] * 3, std=[0.25] * 3)
    )
    run = small.trainer([callback], strategy=strategy, devices=2, num_sanity_val_steps=0)
    run.fit(module, small.loader(batch_size=4), small.loader(batch_size=4))
    if hasattr(module, "reshard"):
        module.reshard()
    parameters = [(p.full_tensor() if isinstance(p, DTensor) else p).detach().flatten() for p in module.parameters()]
    return torch.cat(parameters)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    names = sys.argv[2:] or list(small.CALLBACKS)
    for name in (name for name in small.TRAINING if name in names):
        sharded = fitted(name, ModelParallelStrategy(2, 1, process_group_backend="gloo"))
        replicated = fitted(name, "ddp")
        rank = torch.distributed.get_rank()
        torch.save({"sharded": sharded, "replicated": replicated}, folder / f"{name}{rank}.pt")
    for name in (name for name in small.READING if name in names):
        try:
            fitted(name, ModelParallelStrategy(2, 1, process_group_backend="gloo"))
        except TypeError as error:
            (folder / f"{name}.txt").write_text(str(error), encoding="utf-8")
