"""Wraps a module's methods, above all ``training_step``, for the duration of a run.

Lightning ignores what callback hooks return, so a callback that changes the batch or the loss goes around the module's
``training_step``. Several callbacks may do so: one chain per module keeps them in the order in which they came and puts
the user's method back when the last one leaves, whatever the order of leaving.

They leave when the fit is over, however it ends. Hooks alone do not see to that (a tuner takes the callbacks off the
trainer, so that none hears of its exceptions): the trainer's strategy, which is always torn down, tells them as well,
as does the end of a trainer that nobody holds any more. Should all that fail, a change that belongs to another trainer
than the module's does not act, and leaves.
"""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch_bgdebias.lightning.packages import LightningModule, Trainer

__all__ = ["StepCall", "StepChange", "wrap_method", "wrap_training_step"]


class StepCall:
    """One call of ``training_step`` on its way through the callbacks, which may replace the batch."""

    def __init__(
        self,
        module: LightningModule,
        inner: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        position: int = 0,
    ) -> None:
        self.module = module
        self._inner = inner
        self._args = list(args)
        self._kwargs = dict(kwargs)
        self._position = position
        self._name = None if len(args) > position else _batch_argument(inner, kwargs, position)

    @property
    def batch(self) -> Any:
        """The batch for the rest of the chain, and finally for the user's step."""
        return self._args[self._position] if self._name is None else self._kwargs[self._name]

    @batch.setter
    def batch(self, batch: Any) -> None:
        if self._name is None:
            self._args[self._position] = batch
        else:
            self._kwargs[self._name] = batch

    def run(self) -> Any:
        """Call the rest of the chain and return what the user's ``training_step`` returned."""
        return self._inner(*self._args, **self._kwargs)


#: goes around one training step: change ``call.batch``, ``call.run()``, change the output, return it
StepChange: TypeAlias = Callable[[StepCall], Any]


@dataclass(eq=False)
class _Link:
    """One owner's change; ``trainer`` is the one whose fit it belongs to, if to any."""

    owner: object
    change: StepChange
    trainer: weakref.ref[Trainer] | None
    position: int
    innermost: bool


class _Around:
    """A stand-in for a method. In a copy of the module, or a pickled one, its own method does.

    It is held by the module alone (as its attribute), so a module that nobody else holds is collected as ever.
    """

    def __init__(self, module: Any, name: str) -> None:
        self.links: list[_Link] = []
        self._name = name
        self._module = weakref.ref(module)
        self._own = module.__dict__.get(name)  # an instance attribute of the user's, if there was one
        self._original = getattr(module, name)
        functools.update_wrapper(self, self._original)
        # Lightning reads the signature to see which arguments to pass
        self.__signature__ = inspect.signature(self._original)
        setattr(module, name, self)

    def add(self, link: _Link) -> None:
        """Go around with one more change, instead of an earlier one of the same owner."""
        others = [other for other in self.links if other.owner is not link.owner or other.innermost != link.innermost]
        self.links = sorted([*others, link], key=lambda link: link.innermost)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's method, with the changes around it, the first one outermost."""
        module = self._module()
        assert module is not None, "the module is alive while its own method runs"
        self._drop_stale(module)
        inner: Callable[..., Any] = self._original
        for link in reversed(self.links):
            inner = functools.partial(_call, module, link, inner)
        return inner(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _own_method, (self._module(), self._name, self._own)

    def leave(self, owner: object) -> None:
        """Drop an owner's change; with the last one the module's own step comes back."""
        self.links = [link for link in self.links if link.owner is not owner]
        module = self._module()
        # another wrapper may have been put around this one: it then stays, and only passes calls on
        if self.links or module is None or module.__dict__.get(self._name) is not self:
            return
        if self._own is None:
            delattr(module, self._name)
        else:
            setattr(module, self._name, self._own)

    def _drop_stale(self, module: Any) -> None:
        current = _trainer_of(module)
        for link in [link for link in self.links if link.trainer is not None]:
            assert link.trainer is not None
            if link.trainer() is not current:
                self.leave(link.owner)


def wrap_training_step(
    module: LightningModule, owner: object, change: StepChange, *, trainer: Trainer | None = None
) -> Callable[[], None]:
    """Wrap ``module.training_step`` until the returned function is called (calling it twice is harmless).

    The change that came first is the outermost one: a batch passes through the callbacks in the order of the trainer's
    list, so a callback sees what the ones before it made of the batch, and the loss comes back in reverse.

    Args:
        module: the user's LightningModule; nothing is added to its parameters, submodules or state dict.
        owner: whose change it is; a second change of the same owner replaces its first (a ``fit`` after a failed one).
        change: called with a `StepCall`.
        trainer: whose run it belongs to: the change leaves when the run ends, however it ends.
    """
    return wrap_method(module, "training_step", owner, change, trainer=trainer)


def wrap_method(
    module: Any,
    name: str,
    owner: object,
    change: StepChange,
    *,
    trainer: Trainer | None = None,
    position: int = 0,
    innermost: bool = False,
) -> Callable[[], None]:
    """As `wrap_training_step`, for any method of a module or data module that gets a batch.

    Args:
        module: a LightningModule or LightningDataModule.
        name: of the method.
        owner: whose change it is.
        change: called with a `StepCall`.
        trainer: whose run it belongs to.
        position: of the batch among the method's arguments.
        innermost: inside of all changes that are not, next to the user's own method.
    """
    around = module.__dict__.get(name)
    if not isinstance(around, _Around):
        around = _Around(module, name)
    around.add(_Link(owner, change, None if trainer is None else weakref.ref(trainer), position, innermost))
    if trainer is None:
        return functools.partial(around.leave, owner)
    # the finalizer must not keep alive what it waits for: the owner may know the module, which knows its trainer
    finalizer = weakref.finalize(trainer, _leave_if_alive, weakref.ref(around), weakref.ref(owner))
    finalizer.atexit = False
    torn = _Teardown.of(trainer)

    def restore() -> None:
        around.leave(owner)
        finalizer.detach()
        torn.forget(restore)

    torn.add(restore)
    return restore


class _Teardown:
    """Stands in for the ``teardown`` of a trainer's strategy until it is called, or no longer needed."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._own = strategy.__dict__.get("teardown")
        self._original = strategy.teardown
        self._waiting: list[Callable[[], None]] = []
        strategy.teardown = self

    @classmethod
    def of(cls, trainer: Trainer) -> _Teardown:
        """The one of this trainer."""
        present = trainer.strategy.__dict__.get("teardown")
        return present if isinstance(present, cls) else cls(trainer.strategy)

    def __call__(self) -> None:
        for restore in list(self._waiting):
            restore()
        self._original()

    def add(self, restore: Callable[[], None]) -> None:
        """Call ``restore`` when the strategy is torn down."""
        self._waiting.append(restore)

    def forget(self, restore: Callable[[], None]) -> None:
        """Do not; with the last one the strategy's own method is back."""
        if restore in self._waiting:
            self._waiting.remove(restore)
        if self._waiting or self._strategy.__dict__.get("teardown") is not self:
            return
        if self._own is None:
            del self._strategy.teardown
        else:
            self._strategy.teardown = self._own


def _call(module: Any, link: _Link, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return link.change(StepCall(module, inner, args, kwargs, link.position))


def _leave_if_alive(around: weakref.ref[_Around], owner: weakref.ref[object]) -> None:
    alive, owning = around(), owner()
    if alive is not None and owning is not None:
        alive.leave(owning)


def _own_method(module: Any, name: str, own: Callable[..., Any] | None) -> Callable[..., Any]:
    return types.MethodType(getattr(type(module), name), module) if own is None else own


def _trainer_of(module: Any) -> object:
    try:
        return module.trainer
    except RuntimeError:  # Lightning's marker of a missing one
        return None


def _batch_argument(method: Callable[..., Any], kwargs: dict[str, Any], position: int) -> str:
    if "batch" in kwargs:
        return "batch"
    for name in list(inspect.signature(method).parameters)[position:]:
        if name in kwargs:
            return name
    raise TypeError(f"{method.__name__} was called without a batch; it got {sorted(kwargs)}")
