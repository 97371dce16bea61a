"""The base of all callbacks: seed, logged names, checkpoint key, and which modules are refused.

``Callback(main object, spec=None, *, weight or schedule, seed=0, log=True)``. A schedule is a function of the epoch and
the step, both from 0, where step is the number of training batches seen. What is needed of the module is found in the
first step, and what cannot work is refused in ``setup``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import describe
from torch_bgdebias.lightning.hiding import hide_mask
from torch_bgdebias.lightning.mixed import MixWatch
from torch_bgdebias.lightning.options import option_text
from torch_bgdebias.lightning.packages import CallbackBase, LightningModule, Trainer
from torch_bgdebias.lightning.step import StepCall, wrap_training_step
from torch_bgdebias.lightning.transfers import TransferWatch
from torch_bgdebias.lightning.weights import EXCHANGED, WeightsNote
from torch_bgdebias.seeds import derive_seed

__all__ = ["LightningCallback", "ReadingCallback", "Schedule", "TrainingStepCallback", "device_number"]

#: a number as a function of the epoch and of the training batches seen before this one, both from 0
Schedule: TypeAlias = "Callable[[int, int], float]"

_HIDE = (
    "a module that unpacks (image, label) can have batches with masks: spec=BatchSpec(hide_mask=True) keeps the masks "
    "for the callbacks; so does a loader with collate_fn=torch_bgdebias.batch.collate_masked"
)


class LightningCallback(CallbackBase):
    """The base class of all callbacks, for both Lightning packages.

    Logged names are ``<prefix>/<what>``, one value an epoch: the mean over the epoch's batches and all processes. The
    prefix is the class's, or ``log``'s where that is text. The second callback of one prefix in a trainer logs under
    ``<prefix>_2``, and so on: otherwise Lightning would take the mean of both.

    Args:
        seed: of the draws.
        log: log, do not, or log under this prefix.
        spec: where things are in a batch; with ``hide_mask`` the module's own methods get batches without masks.
        options: everything that may differ between two callbacks of the class, for the checkpoint's key.

    Raises:
        TypeError: a seed that is no whole number, a ``log`` that is neither a flag nor text.
    """

    #: of the logged names
    log_prefix: ClassVar[str] = ""
    #: strategies, by name, under which it cannot work, since they spread the module's parameters over processes
    not_under: ClassVar[tuple[str, ...]] = ()
    #: what to do there instead
    when_sharded: ClassVar[str] = ""

    def __init__(
        self,
        seed: int = 0,
        *,
        log: bool | str = True,
        spec: BatchSpec | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        if spec is not None and not isinstance(spec, BatchSpec):
            raise TypeError(f"spec: expected a BatchSpec, got {describe(spec)}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed: expected a whole number, got {seed!r}")
        if not isinstance(log, bool | str):
            raise TypeError(f"log: expected True, False or a prefix for the names, got {log!r}")
        self.seed, self.spec = seed, spec or BatchSpec()
        self._restores: list[Callable[[], None]] = []
        self._logs = bool(log)  # Lightning writes its own `log` onto callbacks
        self._prefix = self._own_prefix = log if isinstance(log, str) else self.log_prefix
        identifying = {**({} if spec is None else {"spec": spec}), **(options or {})}
        described = {name: option_text(value) for name, value in identifying.items()}
        self._state_key = self._generate_state_key(**described, seed=seed)

    @property
    def state_key(self) -> str:
        """A key made of all options as they were given, which distinguishes several callbacks of one class."""
        return self._state_key

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the logged names; hide masks from the module if requested.

        Raises:
            TypeError: the trainer's strategy spreads the module's parameters in a way that this callback cannot use.
        """
        strategy = next(
            (kind.__name__ for kind in type(trainer.strategy).__mro__ if kind.__name__ in self.not_under), ""
        )
        if strategy and getattr(trainer.strategy, "zero_stage_3", True):
            raise TypeError(
                f"{type(self).__name__} cannot work under {strategy}, which spreads the module's parameters over the "
                f"processes: {self.when_sharded}"
            )
        alike = [
            callback
            for callback in trainer.callbacks  # type: ignore[union-attr]
            if isinstance(callback, LightningCallback) and callback._own_prefix == self._own_prefix
        ]
        number = next((i for i, callback in enumerate(alike, 1) if callback is self), 1)
        self._prefix = self._own_prefix if number == 1 else f"{self._own_prefix}_{number}"
        if self.spec.hide_mask:
            self._restores.append(hide_mask(trainer, pl_module, self, self.spec))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module's methods."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module's methods; explain the error of a module that cannot unpack a batch with a mask."""
        self._leave()
        cannot_unpack = isinstance(exception, ValueError) and "too many values to unpack" in str(exception)
        if cannot_unpack and not self.spec.hide_mask and _HIDE not in getattr(exception, "__notes__", ()):
            exception.add_note(_HIDE)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Find this callback's state in a checkpoint that was written with other options, and so with another key."""
        states = checkpoint.get("callbacks", {})
        if self.state_key in states or not self.state_dict():
            return
        name = type(self).__qualname__
        saved_keys = [key for key in states if str(key) == name or str(key).startswith(name + "{")]
        alike = [callback for callback in trainer.callbacks if type(callback) is type(self)]  # type: ignore[union-attr]
        if len(saved_keys) == len(alike) == 1:  # there is no mistaking whose it is
            self.load_state_dict(states[saved_keys[0]])
        elif saved_keys:
            rank_zero_warn(f"{name}: the checkpoint has no state of these options, so this one starts anew")

    def _leave(self) -> None:
        for restore in self._restores:
            restore()
        self._restores = []

    def _log_values(self, module: LightningModule, values: Mapping[str, float | Tensor], batch_size: int) -> None:
        """Log means over the epoch; plain numbers are put on the device without waiting for it."""
        if not self._logs:
            return
        tensors = {
            f"{self._prefix}/{name}": value.detach() if isinstance(value, Tensor) else device_number(value, module)
            for name, value in values.items()
        }
        module.log_dict(tensors, on_step=False, on_epoch=True, sync_dist=True, batch_size=batch_size)


class TrainingStepCallback(LightningCallback):
    """A callback that wraps the module's ``training_step`` from a fit's start to its end, however it ends.

    Subclasses write `_step`, and `_prepare` for what they need of the module: it runs when training starts,
    so that no step waits for it, and at the latest in the first step, since a tuner's fit skips the start's hooks. What
    is drawn comes from `_seeded`, which depends on the seed, the process' rank and the number of training batches
    seen; both numbers are in the checkpoint and the same on every rank, so a resumed run draws what an uninterrupted
    one would have.

    Args:
        seed, log, spec, options: see `LightningCallback`.
    """

    #: what to use in a step of your own instead, where the callback adds to the loss; "" where it does not
    by_hand: ClassVar[str] = ""
    #: what follows where transfer hooks move images and not their masks
    if_masks_do_not_fit: ClassVar[str] = "backgrounds are exchanged where the objects are no longer"

    not_under = ("FSDPStrategy", "DeepSpeedStrategy")
    when_sharded = "use DDPStrategy, or ModelParallelStrategy with torch's fully_shard"

    #: training batches seen
    steps: int = 0
    #: the trainer's number of the last one
    _batch: int | None = None
    #: whether an optimiser evaluates that one once more (LBFGS, SAM)
    _again: bool = False
    _ready: bool = False
    _transfers: TransferWatch | None = None
    _mixtures: MixWatch | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject unsupported modules, then wrap the training step."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._refuse(pl_module)
            self._ready, self._batch = False, None
            if trainer.global_step == 0 and trainer.current_epoch == 0:  # not a fit that goes on where one ended
                self._begin()
            self._restores.append(wrap_training_step(pl_module, self, self._around, trainer=trainer))

    def state_dict(self) -> dict[str, Any]:
        """Batches seen and the seed, the same on every rank."""
        return {"steps": self.steps, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the random draws from a checkpoint."""
        self.steps, self.seed, self._batch = int(state_dict["steps"]), int(state_dict["seed"]), None

    def _step(self, call: StepCall) -> Any:
        raise NotImplementedError(f"{type(self).__name__} goes around a training step and must say how")

    def _begin(self) -> None:
        """A run starts: forget the batches of an earlier one."""
        self.steps = 0

    def _prepare(self, module: LightningModule) -> None:
        """Find what is needed of the module, which is on its device; once a fit, before its first step."""

    def _refuse(self, module: LightningModule) -> None:
        """Raise where this callback cannot work."""
        name = type(module).__name__
        if self.by_hand and not module.automatic_optimization:
            raise TypeError(
                f"{name} optimises manually, so there is no loss to add to: use {self.by_hand} in its training_step"
            )
        if "dataloader_iter" in inspect.signature(module.training_step).parameters:
            raise TypeError(
                f"{name}.training_step takes a dataloader_iter and fetches its batches itself, out of reach of "
                f"{type(self).__name__}: let it take a batch"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the module before the first step."""
        self._make_ready(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Emit the warnings that need values from the device."""
        if self._transfers is not None:
            self._transfers.say()
        if self._mixtures is not None:
            self._mixtures.say()

    def _make_ready(self, module: LightningModule) -> None:
        if not self._ready:
            self._refuse(module)  # the module's own setup may have changed how it optimises
            self._prepare(module)
            self._transfers = TransferWatch(self.spec, self.if_masks_do_not_fit)
            self._transfers.watch(module.trainer, module)
            self._restores.append(self._transfers.leave)
            self._mixtures = MixWatch(self.spec, self.if_masks_do_not_fit)
            self._ready = True

    def _around(self, call: StepCall) -> Any:
        if not call.module.trainer.training:  # a validation step that calls the training step
            return call.run()
        self._make_ready(call.module)
        batch = call.module.trainer.fit_loop.total_batch_idx
        self._again = batch == self._batch
        if self._again:
            self.steps -= 1
        step_number, self._batch = self.steps, batch
        if self._mixtures is not None:
            self._mixtures.look_at(call.batch)
        # of several loaders one may have run out: the module's step knows what to do with the others' batches
        output = call.run() if self.spec.absent(call.batch) else self._step(call)
        self.steps = step_number + 1
        return output

    def _seeded(self, module: LightningModule) -> torch.Generator:
        """The generator of this step and rank, on the module's device; the class's name keeps callbacks with the same
        seed apart."""
        number = derive_seed(type(self).__name__, self.seed, module.global_rank, self.steps)
        return torch.Generator(module.device).manual_seed(number)


class ReadingCallback(LightningCallback):
    """A callback that measures at the end of validation and test epochs, and changes nothing.

    Subclasses write `_read`. In a fit it runs in epochs 0, n, 2n, ..., not in the sanity check; where a fit ends
    without a measurement, a warning says so.

    Args:
        every_n_epochs: n.
        seed, log, spec, options: see `LightningCallback`.

    Raises:
        ValueError: ``every_n_epochs`` below 1.
    """

    not_under = ("ModelParallelStrategy", "FSDPStrategy", "DeepSpeedStrategy")
    when_sharded = (
        "each process measures images of its own, and would wait for the others' in every layer; measure the saved "
        "model, or call evaluate_background_bias with the same loader in every process"
    )

    def __init__(
        self,
        *,
        every_n_epochs: int = 1,
        seed: int = 0,
        log: bool | str = True,
        spec: BatchSpec | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(seed, log=log, spec=spec, options=options)
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs: expected at least 1, got {every_n_epochs}")
        self.every_n_epochs = every_n_epochs
        self._measured = False
        self._weights = WeightsNote()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset: nothing has been measured in this run."""
        super().setup(trainer, pl_module, stage)
        self._measured, self._weights = False, WeightsNote()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Record the weights that are validated or tested."""
        if batch_idx == 0:
            self._weights.take(pl_module)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        if not trainer.sanity_checking and not (
            trainer.state.fn == "fit" and trainer.current_epoch % self.every_n_epochs
        ):
            self._measure_and_log(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        self._measure_and_log(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Warn if a fit was never measured; restore the module's methods."""
        super().teardown(trainer, pl_module, stage)
        if stage == "fit" and not self._measured and trainer.current_epoch:  # a tuner's run goes back to epoch 0
            rank_zero_warn(
                f"{type(self).__name__} measured nothing: it measures at the end of validation epochs, and there was "
                "none; give the trainer a validation loader, the module a validation_step, and limit_val_batches > 0, "
                f"within the first of every {self.every_n_epochs} epoch(s)"
            )

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> Mapping[str, float]:
        """Measure; the numbers to log, the same on every process."""
        raise NotImplementedError(f"{type(self).__name__} reads a module and must say what")

    def _without_numbers(self, module: LightningModule, problem: str) -> Mapping[str, float]:
        """Say why there are no numbers; what is logged in their place."""
        rank_zero_warn(f"{type(self).__name__} does not measure {type(module).__name__}: {problem}")
        return {}

    def _measure_and_log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._weights.exchanged(pl_module):
            values = self._without_numbers(pl_module, EXCHANGED)
        else:
            values = self._read(trainer, pl_module)
        self._measured = True
        self._log_values(pl_module, values, batch_size=1)


def device_number(value: float, module: LightningModule) -> Tensor:
    """A number to log as a tensor on the device: Lightning would copy a plain one and wait for the copy."""
    return torch.full((), value, device=module.device)
