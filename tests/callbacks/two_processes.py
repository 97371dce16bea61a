"""A fit of every callback in two processes: python two_processes.py FOLDER (Lightning starts the second one itself)."""

from __future__ import annotations

import sys
from pathlib import Path

import small_training as small
import torch

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, make in small.CALLBACKS.items():
        module, callback = small.theirs(), make()
        run = small.trainer([callback], strategy="ddp", devices=2)
        run.fit(module, small.loader(batch_size=4), small.loader(batch_size=4))
        logged = {key: value for key, value in run.callback_metrics.items() if "/" in key and "seconds" not in key}
        state = {"weights": module.state_dict(), "logged": logged, "left": "training_step" in vars(module)}
        torch.save(state, folder / f"{name}{run.global_rank}.pt")
