"""Models with sharded parameters: what torch's ``fully_shard`` (FSDP2) needs for a second backward pass.

The parts are known by their methods, so that nothing of ``torch.distributed`` is imported for models that have none.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["check_not_flattened", "local_part", "parameters_whole", "plain_type"]


class _Holds:
    """The number of blocks that keep a part's parameters whole, and what the part did with them before."""

    def __init__(self) -> None:
        self._counts: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()

    @contextmanager
    def of(self, part: Any) -> Iterator[None]:
        """Inside, the part's parameters stay whole after a backward pass."""
        count = self._counts.get(part, 0)
        self._counts[part] = count + 1
        reshards = _reshards(part)
        if not count:
            part.unshard()
            part.set_reshard_after_backward(False, recurse=False)
            part.set_is_last_backward(False)
        try:
            yield
        except BaseException:
            part.reshard()
            raise
        finally:
            self._counts[part] = count
            if not count:
                part.set_reshard_after_backward(reshards, recurse=False)
                part.set_is_last_backward(True)


_holds = _Holds()


@contextmanager
def parameters_whole(model: nn.Module) -> Iterator[None]:
    """Keep a sharded model's parameters whole for backward passes before the training's own; other models stay as is.

    ``fully_shard`` frees the gathered parameters after a backward pass, which a relevance pass that is to be trained
    through still needs. They are freed after the training's own backward pass, or where an error comes first. Every
    process has to enter the block, after the model's first call or with its outermost part.
    """
    with ExitStack() as stack:
        for part in model.modules():
            if hasattr(type(part), "set_reshard_after_backward"):
                stack.enter_context(_holds.of(part))
        yield


def local_part(parameter: Tensor) -> Tensor:
    """A parameter without gradient; of one that is spread over processes, what is on this one."""
    local: Tensor = parameter.detach()
    to_local: Any = getattr(local, "to_local", None)
    return local if to_local is None else to_local()


def plain_type(module: nn.Module) -> type:
    """The module's original class, without the one that ``fully_shard`` puts around it."""
    kind = type(module)
    return kind.__mro__[2] if hasattr(kind, "set_reshard_after_backward") else kind


def check_not_flattened(model: nn.Module, *, what: str) -> None:
    """Refuse a model with parts in the wrapper ``FullyShardedDataParallel`` (FSDP1).

    Args:
        model: the model.
        what: what cannot be done with it.

    Raises:
        TypeError: it has such parts.
    """
    for name, part in model.named_modules():
        if any(base.__name__ == "FullyShardedDataParallel" for base in type(part).__mro__):
            raise TypeError(
                f"model: {name or type(part).__name__!r} is a FullyShardedDataParallel, which frees its parameters "
                f"after a first backward pass: {what} needs torch.distributed.fsdp.fully_shard instead"
            )


def _reshards(part: Any) -> bool:
    """Whether the part reshards by itself: torch sets this and does not say it, so its own note is read."""
    groups = getattr(part._get_fsdp_state(), "_fsdp_param_groups", None) or ()
    return all(getattr(group, "reshard_after_backward", True) for group in groups)
