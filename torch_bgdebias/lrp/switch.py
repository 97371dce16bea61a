"""The switch between the two backward passes, and the nodes that obey it.

One forward pass serves two backward passes: the relevance pass, in which some nodes send a modified gradient, and the
ordinary one, in which every gradient is the true one. The nodes ask a `Switch` which pass is running. It holds
no tensor, so that nodes may hold it: anything a node reaches that leads back to a tensor of the same graph would be a
cycle that Python's collector cannot see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torch_bgdebias.lrp.graph import nodes_behind

__all__ = ["Choose", "Freeze", "Switch", "depends_on", "is_copy", "needs_graph", "outputs", "sources"]


class Switch:
    """Says to the nodes of one explained forward pass whether the running backward pass is the relevance pass.

    Attributes:
        active: it is.
        rule: by which of several rules, for passes that have a choice.
    """

    __slots__ = ("active", "rule")

    def __init__(self) -> None:
        self.active = False
        self.rule = ""

    @contextmanager
    def on(self, rule: str = "") -> Iterator[None]:
        """The backward passes inside the block are relevance passes; nested blocks and exceptions are fine."""
        before = self.active, self.rule
        self.active, self.rule = True, rule
        try:
            yield
        finally:
            self.active, self.rule = before


class Choose(Function):
    """``Choose.apply(y, x, switch, rule, *extra)`` is ``y``: the ordinary gradient goes to ``y``, relevance to ``x``.

    In the relevance pass ``x`` gets ``rule(gradient, x, *extra)``, built from differentiable operations, and nothing
    goes to ``y``. So an operation keeps its own exact derivatives, of every order, beside any rule for relevance.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, switch: Switch, rule: Callable[..., Tensor], *extra: Tensor) -> Tensor:
        """``y`` itself, sharing its memory."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *extra)
        ctx.switch, ctx.rule = switch, rule
        return y.detach()  # shares memory and version counter: later in-place operations are noticed as ever

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """To ``y``, or in the relevance pass to ``x``."""
        none = (None,) * len(ctx.saved_tensors)
        if grad is None:
            return (None, None, *none, None)
        if not ctx.switch.active:
            return (grad, None, *none, None)
        return (None, ctx.rule(grad, *ctx.saved_tensors), *none, None)


class Freeze(Function):
    """Identity that lets the ordinary gradient through and stops relevance: its input counts as a constant there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, switch: Switch) -> Tensor:
        """``x`` itself, sharing its memory."""
        ctx.set_materialize_grads(False)
        ctx.switch = switch
        return x.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        """The gradient, or nothing in the relevance pass."""
        return (None if ctx.switch.active else grad), None


def needs_graph(*tensors: Tensor | None) -> bool:
    """Whether an operation on these tensors will be differentiated."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


_COPIES = frozenset({"CloneBackward0", "ToCopyBackward0", "AliasBackward0"})
#: what torch's ``fully_shard`` puts around the inputs of a part, all of them in one node
_SHARDED = "RegisterPostBackwardFunctionBackward"
_RESHAPES = frozenset(
    {
        "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0", "SqueezeBackward0",
        "SqueezeBackward1", "SqueezeBackward2",
    }
)  # fmt: skip


def sources(tensor: Tensor, *, reshaped: bool = False) -> Iterator[Any]:
    """The node that made ``tensor`` and, as long as that is a mere copy, what was copied.

    Tensors are told apart by their nodes, which change with an operation in place and not with a hook that returns a
    copy. Copies are clones and conversions to another dtype or device; ``reshaped``: also other shapes of the same
    values in the same order.
    """
    return (node for node, _ in outputs(tensor, reshaped=reshaped))


def outputs(tensor: Tensor, *, reshaped: bool = False) -> Iterator[tuple[Any, int]]:
    """As `sources`, with the number of the tensor among what the node made (``split`` makes several)."""
    node, number = tensor.grad_fn, tensor.output_nr
    while node is not None:
        yield node, number
        name = node.name()
        if name == _SHARDED:
            node, number = node.next_functions[number]
            continue
        copied = name in _COPIES or (reshaped and name in _RESHAPES)
        node, number = node.next_functions[0] if copied else (None, 0)


def is_copy(tensor: Tensor, node: Any) -> bool:
    """Whether ``tensor`` is what ``node`` made, or a copy of it."""
    return any(source is node for source in sources(tensor))


def depends_on(tensor: Tensor, source: Tensor | None) -> bool:
    """Whether the graph behind ``tensor`` leads to ``source`` (yes when there is no telling)."""
    if source is None:
        return True
    return any(node is source.grad_fn for node in nodes_behind([tensor.grad_fn]))
