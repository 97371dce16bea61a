"""``BatchSpec(hide_mask=True)``: hides masks from the module's own methods while callbacks still get them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.lightning.packages import LightningModule, Trainer
from torch_bgdebias.lightning.step import StepCall, wrap_method

__all__ = ["hide_mask", "is_written"]

#: method -> position of the batch among its arguments
_STEPS = {
    **{f"{stage}_step": 0 for stage in ("training", "validation", "test", "predict")},
    **{f"on_{stage}_batch_start": 0 for stage in ("train", "validation", "test", "predict")},
    **{f"on_{stage}_batch_end": 1 for stage in ("train", "validation", "test", "predict")},
}
_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def hide_mask(trainer: Trainer, module: LightningModule, owner: object, spec: BatchSpec) -> Callable[[], None]:
    """Keep masks from the module's steps and hooks, and from the data module's, until the returned function is called.

    Only overridden methods are wrapped. What a transfer hook returns gets its mask back, on its device.
    Several callbacks may hide the same mask: the later ones find it gone.
    """

    inside: list[StepCall] = []

    def without(call: StepCall) -> Any:
        if not inside:  # a step that another one calls is given what that one has
            call.batch, _ = spec.without_mask(call.batch)
        inside.append(call)
        try:
            return call.run()
        finally:
            inside.pop()

    def around_transfer(call: StepCall) -> Any:
        call.batch, hidden = spec.without_mask(call.batch)
        return spec.with_mask(call.run(), hidden)

    def around_move(call: StepCall) -> Any:
        call.batch, hidden = spec.without_mask(call.batch)
        moved = {
            name: value.to(module.device) if isinstance(value, Tensor) else value for name, value in hidden.items()
        }
        return spec.with_mask(call.run(), moved)

    restores = [
        wrap_method(module, name, owner, without, trainer=trainer, position=position, innermost=True)
        for name, position in _STEPS.items()
        if is_written(module, name)
    ]
    for holder in (module, trainer.datamodule):  # type: ignore[union-attr]
        for name in _TRANSFER:
            if holder is not None and is_written(holder, name):
                change = around_move if name == "transfer_batch_to_device" else around_transfer
                restores.append(wrap_method(holder, name, owner, change, trainer=trainer, innermost=True))

    def restore() -> None:
        for restore_one in restores:
            restore_one()

    return restore


def is_written(holder: Any, name: str) -> bool:
    """Whether a method was overridden: Lightning's own do nothing."""
    home = str(getattr(getattr(holder, name, None), "__module__", None) or "lightning")
    return home.split(".")[0] not in ("lightning", "pytorch_lightning")
