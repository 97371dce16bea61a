"""The queue loss with its gradient in closed form: nothing of the queue's size is stored or copied."""

from __future__ import annotations

import itertools
import math
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from torch_bgdebias.checks import check_finite, values_readable

__all__ = ["check_lengths", "inverse_length", "queue_info_nce"]

_TINY = 1e-8
Groups: TypeAlias = tuple[Tensor, list[tuple[int, int, int]]]

#: numbers that are gathered at a time where there are more queues than anchors
_CHUNK = 2**22


def inverse_length(tensor: Tensor, *, name: str | None = None) -> Tensor:
    """One over the length along the last dimension, without that dimension; 0 for a zero vector.

    With a ``name``, values that `check_lengths` refuses are an error.
    """
    length = torch.linalg.vector_norm(tensor, dim=-1)
    if name is not None:
        check_lengths(length, tensor, name=name)
    return torch.reciprocal(length.masked_fill(length <= _TINY, math.inf))


def check_lengths(length: Tensor, tensor: Tensor, *, name: str) -> None:
    """Raise ValueError for embeddings that are not finite or too long for cosines, where reading them is free.

    Of two vectors longer than 9e18 float32 holds neither the product nor one over it. The lengths tell of both at
    little cost.
    """
    if not values_readable(length):
        return
    longest = torch.finfo(length.dtype).max ** 0.5 / 2
    fitting = length.detach() <= longest  # false for NaN
    if not bool(fitting.all()):
        check_finite(tensor, name=name)
        dtype = str(length.dtype).removeprefix("torch.")
        samples = ((~fitting).flatten(1).any(1) if fitting.ndim > 1 else ~fitting).nonzero().flatten().tolist()
        raise ValueError(
            f"{name}: expected embeddings of a length up to {longest:.2g}, where {dtype} can take cosines, got "
            f"{float(length.detach().max()):.2g} in sample(s) {samples[:5]}; normalise them"
        )


def queue_info_nce(
    anchor: Tensor, positive: Tensor, rows: Tensor, index: Tensor, valid: Tensor, temperature: float
) -> Tensor:
    """InfoNCE (B,) of anchors (B, D) with positives (B, D) and the valid (B, N) ones of ``rows[index]`` (K, N, D)."""
    with torch.no_grad():
        lengths = inverse_length(anchor, name="anchor"), inverse_length(positive, name="positive")
    losses: Tensor = _QueueInfoNCE.apply(
        anchor, positive, (rows, index, valid), lengths, temperature, torch.is_grad_enabled()
    )
    return losses


class _QueueInfoNCE(torch.autograd.Function):
    """With unit vectors a, p, n_i, s_i = a . n_i, s = a . p, w_i = softmax weight of negative i over the temperature:

    d loss / d s_i = w_i, d loss / d s = - sum w_i, and d s / d x = (p - s a) / |x| for the anchor x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        positive: Tensor,
        negatives: tuple[Tensor, Tensor, Tensor],  # the queues' rows, each anchor's queue, which of its rows count
        lengths: tuple[Tensor, Tensor],
        temperature: float,
        gradients: bool,  # in here they are always off
    ) -> Tensor:
        (rows, index, valid), (inverse_a, inverse_p) = negatives, lengths
        groups = _groups(index) if values_readable(index) else None
        products, inverse_n = _products(anchor, rows, index, groups)
        similar = products * (inverse_a[:, None] * inverse_n)
        positive_logit = torch.linalg.vecdot(anchor, positive) * inverse_a * inverse_p
        # relative to the positive, so that a cold softmax does not cancel two large numbers
        logits = ((similar - positive_logit[:, None]) / temperature).masked_fill(~valid, -math.inf)
        losses = F.pad(logits, (1, 0)).logsumexp(1)
        if gradients and (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            weights = (logits - losses[:, None]).exp() / temperature
            total = weights.sum(1)
            radial = inverse_a * (torch.linalg.vecdot(weights, similar) - total * positive_logit)
            cross = (total * inverse_a * inverse_p)[:, None]
            gradient = _weighted(weights * inverse_n * inverse_a[:, None], rows, index, groups)
            gradient.addcmul_(cross, positive, value=-1).addcmul_((radial * inverse_a)[:, None], anchor, value=-1)
            positive_part = positive * (total * positive_logit * inverse_p.square())[:, None]
            positive_part.addcmul_(cross, anchor, value=-1)
            ctx.save_for_backward(gradient, positive_part)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        anchor, positive = ctx.saved_tensors
        outer = outer[:, None]
        return outer * anchor, outer * positive, None, None, None, None


def _products(anchor: Tensor, rows: Tensor, index: Tensor, groups: Groups | None) -> tuple[Tensor, Tensor]:
    """Products (B, N) of anchors with their queues' rows, and one over those rows' lengths (B, N)."""
    keys, size, dim = rows.shape
    if groups is not None:  # a product a queue, which needs to know who belongs to it
        order, runs = groups
        anchors, products = anchor.index_select(0, order), anchor.new_empty(len(index), size)
        for key, first, last in runs:
            torch.mm(anchors[first:last], rows[key].T, out=products[first:last])
        present_keys = [key for key, _, _ in runs]
        lengths = inverse_length(rows if len(present_keys) == keys else rows[present_keys])
        position = index if len(present_keys) == keys else torch.searchsorted(torch.tensor(present_keys), index)
        return torch.empty_like(products).index_copy_(0, order, products), lengths[position]
    if keys <= anchor.shape[0]:  # all rows at once are less than those of every anchor
        flat, row_index = rows.flatten(0, 1), _positions(index, size)
        return (anchor @ flat.T).gather(1, row_index), inverse_length(flat)[row_index]
    step, parts = _step(size, dim), []
    for a, i in zip(torch.split(anchor, step), torch.split(index, step), strict=True):
        gathered = rows.index_select(0, i)
        parts.append((torch.einsum("bd,bnd->bn", a, gathered), inverse_length(gathered)))
    return torch.cat([x for x, _ in parts]), torch.cat([x for _, x in parts])


def _weighted(weights: Tensor, rows: Tensor, index: Tensor, groups: Groups | None) -> Tensor:
    """Sums (B, D) of each anchor's rows under weights (B, N)."""
    keys, size, dim = rows.shape
    if groups is not None:
        order, runs = groups
        sorted_weights, sums = weights.index_select(0, order), weights.new_empty(len(index), dim)
        for key, first, last in runs:
            torch.mm(sorted_weights[first:last], rows[key], out=sums[first:last])
        return torch.empty_like(sums).index_copy_(0, order, sums)
    if keys <= weights.shape[0]:
        flat = rows.flatten(0, 1)
        return weights.new_zeros(weights.shape[0], keys * size).scatter_(1, _positions(index, size), weights) @ flat
    step = _step(size, dim)
    parts = zip(torch.split(weights, step), torch.split(index, step), strict=True)
    return torch.cat([torch.einsum("bn,bnd->bd", w, rows.index_select(0, i)) for w, i in parts])


def _groups(index: Tensor) -> Groups:
    """The order that puts equal keys together, and (key, first, last + 1) of each run."""
    ordered, order = index.sort(stable=True)
    groups, first = [], 0
    for key, run in itertools.groupby(ordered.tolist()):
        last = first + len(list(run))
        groups.append((key, first, last))
        first = last
    return order, groups


def _positions(index: Tensor, size: int) -> Tensor:
    return (index * size)[:, None] + torch.arange(size, device=index.device)


def _step(size: int, dim: int) -> int:
    return max(1, _CHUNK // (size * dim))
