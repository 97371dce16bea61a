"""What the callbacks share: changing a training step for a while, and leaving inference mode.

Lightning ignores what callback hooks return, so a callback that changes the batch or the loss goes around the module's
``training_step``. Several callbacks may do so: one chain per module keeps them in the order in which they came and puts
the user's method back when the last one leaves, whatever the order of leaving.
"""

from __future__ import annotations

import functools
import inspect
import random
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytorch_lightning as pl
import torch
from torch import Tensor

__all__ = [
    "StepCall",
    "StepChange",
    "TrainingStepCallback",
    "add_to_loss",
    "device_number",
    "gradients_allowed",
    "wrap_training_step",
]


class StepCall:
    """One call of ``training_step`` on its way through the callbacks: the batch may be exchanged, then it runs."""

    def __init__(
        self, module: pl.LightningModule, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.module = module
        self._inner = inner
        self._args = list(args)
        self._kwargs = dict(kwargs)
        self._name = None if args else _batch_argument(inner, kwargs)

    @property
    def batch(self) -> Any:
        """The batch that the rest of the chain, and in the end the user's step, will get."""
        return self._args[0] if self._name is None else self._kwargs[self._name]

    @batch.setter
    def batch(self, batch: Any) -> None:
        if self._name is None:
            self._args[0] = batch
        else:
            self._kwargs[self._name] = batch

    def run(self) -> Any:
        """Call the rest of the chain and return what the user's ``training_step`` returned."""
        return self._inner(*self._args, **self._kwargs)


#: goes around one training step: change ``call.batch``, ``call.run()``, change the output, return it
StepChange: TypeAlias = Callable[[StepCall], Any]


class _Chain:
    """The changes of one module, outermost first, behind a single replaced ``training_step``."""

    def __init__(self, module: pl.LightningModule) -> None:
        self.changes: list[tuple[object, StepChange]] = []
        self._module = weakref.ref(module)
        self._own = module.__dict__.get("training_step")  # an instance attribute of the user's, if there was one
        self._original = module.training_step
        module.training_step = _Step(self, self._original, self._own)  # type: ignore[method-assign]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The module's step, with the changes around it."""
        inner: Callable[..., Any] = self._original
        for _, change in reversed(self.changes):
            inner = functools.partial(self._call, change, inner)
        return inner(*args, **kwargs)

    def module(self) -> pl.LightningModule | None:
        """Whose step it is."""
        return self._module()

    def _call(self, change: StepChange, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        module = self._module()
        assert module is not None, "the module is alive while its own method runs"
        return change(StepCall(module, inner, args, kwargs))

    def restore(self) -> None:
        module = self._module()
        if module is None:
            return
        if self._own is None:
            del module.training_step
        else:
            module.training_step = self._own  # type: ignore[method-assign]


class _Step:
    """What stands in for a module's ``training_step``. In a copy of the module, or a pickled one, its own step does."""

    def __init__(self, chain: _Chain, original: Callable[..., Any], own: Callable[..., Any] | None) -> None:
        functools.update_wrapper(self, original)
        # Lightning reads the signature to see which arguments to pass
        self.__signature__ = inspect.signature(original)
        self._chain, self._own = chain, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._chain.run(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, Any]]:
        return _own_step, (self._chain.module(), self._own)


def _own_step(module: pl.LightningModule, own: Callable[..., Any] | None) -> Callable[..., Any]:
    return types.MethodType(type(module).training_step, module) if own is None else own


_chains: weakref.WeakKeyDictionary[pl.LightningModule, _Chain] = weakref.WeakKeyDictionary()


def wrap_training_step(module: pl.LightningModule, owner: object, change: StepChange) -> Callable[[], None]:
    """Go around ``module.training_step`` until the returned function is called (calling it twice is harmless).

    The change that came first is the outermost one: a batch passes through the callbacks in the order of the trainer's
    list, so a callback sees what the ones before it made of the batch, and the loss comes back in reverse.

    Args:
        module: the user's LightningModule; nothing is added to its parameters, submodules or state dict.
        owner: whose change it is; a second change of the same owner replaces its first (a ``fit`` after a failed one).
        change: called with a :class:`StepCall`.
    """
    chain = _chains.get(module)
    if chain is None:
        chain = _chains[module] = _Chain(module)
    chain.changes = [(o, c) for o, c in chain.changes if o is not owner] + [(owner, change)]

    def restore() -> None:
        chain.changes = [(o, c) for o, c in chain.changes if o is not owner]
        if not chain.changes and _chains.get(module) is chain:
            del _chains[module]
            chain.restore()

    return restore


class TrainingStepCallback(pl.Callback):
    """A callback that goes around the module's ``training_step`` from a fit's start to its end, also a failed one.

    Subclasses write :meth:`_step`. What they draw comes from :meth:`_seeded`, which depends on the seed, the process'
    rank and the number of training batches seen; both numbers are in the checkpoint and the same on every rank, so a
    resumed run draws what an uninterrupted one would have.

    Args:
        seed: of the draws.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        #: training batches seen
        self.steps = 0
        self._restore: Callable[[], None] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Go around the training step."""
        if stage == "fit":
            self._restore = wrap_training_step(pl_module, self, self._step)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put the module's own training step back."""
        self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Put the module's own training step back."""
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        """Batches seen and the seed, the same on every rank."""
        return {"steps": self.steps, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on drawing where the checkpoint was written."""
        self.steps, self.seed = int(state_dict["steps"]), int(state_dict["seed"])

    def _step(self, call: StepCall) -> Any:
        raise NotImplementedError(f"{type(self).__name__} goes around a training step and must say how")

    def _seeded(self, module: pl.LightningModule) -> torch.Generator:
        """The generator of this step and rank, on the module's device. The text is hashed, so that neighbouring
        numbers do not start it alike; the class's name keeps callbacks with the same seed apart."""
        number = random.Random(f"{type(self).__name__} {self.seed} {module.global_rank} {self.steps}").getrandbits(63)
        return torch.Generator(module.device).manual_seed(number)

    def _leave(self) -> None:
        if self._restore is not None:
            self._restore()
            self._restore = None


def device_number(value: float, module: pl.LightningModule) -> Tensor:
    """A number to log. Lightning copies plain ones to the device, and waits until they are there; filling does not."""
    return torch.full((), value, device=module.device)


def add_to_loss(output: Any, extra: Tensor, *, weight: float = 1.0) -> Any:
    """``weight * loss + extra`` in what a training step returned: a tensor, or a dict with the key ``loss``.

    Raises:
        TypeError: the step returned neither (manual optimisation: call the functional form in your own step).
    """
    if isinstance(output, Tensor):
        return output * weight + extra
    if isinstance(output, dict) and isinstance(output.get("loss"), Tensor):
        return {**output, "loss": output["loss"] * weight + extra}
    raise TypeError(
        f"training_step: expected a loss tensor or a dict with 'loss', got {type(output).__name__}; "
        "with manual optimisation use the loss class in your own training_step"
    )


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave inference mode and enable gradients inside validation hooks; tensors made outside must be cloned."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _batch_argument(step: Callable[..., Any], kwargs: dict[str, Any]) -> str:
    if "batch" in kwargs:
        return "batch"
    for name in inspect.signature(step).parameters:
        if name in kwargs:
            return name
    raise TypeError(f"training_step was called without a batch; it got {sorted(kwargs)}")
