"""Finds out whether the loss is computed from a network's output directly, or from further layers behind it."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from torch import Tensor

from torch_bgdebias.lrp.graph import nodes_behind

__all__ = ["Link", "link_to_loss"]

#: "logits": the loss is made of them; "features": layers lie between; "none": nothing leads from the loss to them
Link: TypeAlias = Literal["logits", "features", "none"]

#: parts of the names of nodes of linear and convolution layers
_PRODUCTS = ("Addmm", "MmBackward", "Bmm", "Baddbmm", "MvBackward", "Convolution", "Convolve", "LinearBackward")
#: parts of the names of nodes that turn logits into probabilities, or into a loss
_DECISIONS = ("Softmax", "Sigmoid", "BinaryCrossEntropy", "MarginLoss", "SoftMargin")
#: parts of the names of nodes that give the same values in another shape
_SHAPES = ("ViewBackward", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze")


def link_to_loss(loss: Tensor, logits: Tensor) -> Link:
    """How the loss hangs on a network's output.

    A way from the loss to the output passes softmax, means, sums and weights. Where every way passes a product with
    learned weights, or a product that comes before the softmax (its weights may be frozen), the output is no decision
    but features of one.

    Args:
        loss: what the training step returned.
        logits: (B, K), what the network returned.
    """
    goal: Any = logits.grad_fn
    if goal is None or loss.grad_fn is None:
        return "none"
    while _has_name(goal, _SHAPES):  # the step may have put what the network returned in this shape itself
        goal = goal.next_functions[0][0]
    visited: set[tuple[Any, bool]] = set()
    pending: list[tuple[Any, bool]] = [(loss.grad_fn, False)]
    behind: list[Any] = []  # nodes of layers, which are not passed at first
    while pending:
        node, decided = pending.pop()
        if node is goal:
            return "logits"
        if node is None or (node, decided) in visited:
            continue
        visited.add((node, decided))
        decided = decided or _has_name(node, _DECISIONS)
        if _has_name(node, _PRODUCTS) and (decided or _has_leaf(node)):
            behind.append(node)
            continue
        pending += [(following, decided) for following, _ in node.next_functions]
    return "features" if any(node is goal for node in nodes_behind(behind)) else "none"


def _has_name(node: Any, names: tuple[str, ...]) -> bool:
    return any(name in node.name() for name in names)


def _has_leaf(node: Any) -> bool:
    """Whether one of a product's factors is a parameter, transposed or cast at most."""
    nodes = [following for following, _ in node.next_functions]
    while nodes:
        following = nodes.pop()
        if following is None:
            continue
        if hasattr(following, "variable"):
            return True
        if following.name().removesuffix("Backward0") in ("T", "Transpose", "ToCopy", "View", "Unsqueeze", "Expand"):
            nodes += [after for after, _ in following.next_functions]
    return False
