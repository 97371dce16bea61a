"""Attention in the relevance pass: its weights count as constants, so relevance flows through the values alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_bgdebias.lrp.switch import Freeze, Switch, needs_graph

__all__ = ["attend", "frozen"]


def frozen(weights: Tensor, switch: Switch) -> Tensor:
    """``weights`` as a constant of the relevance pass."""
    if not needs_graph(weights):
        return weights
    output: Tensor = Freeze.apply(weights, switch)
    return output


def attend(
    switch: Switch,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention`` written out: its fused kernels cannot be differentiated twice."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~causal, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    if attn_mask is None and not is_causal:
        weights = torch.softmax(scores, -1)
    else:  # a query that may look nowhere gets nothing, as from torch
        nowhere = (scores == -math.inf).all(-1, keepdim=True)
        weights = torch.softmax(scores.masked_fill(nowhere, 0), -1).masked_fill(nowhere, 0)
    weights = frozen(weights, switch)
    if dropout_p > 0:
        weights = torch.dropout(weights, dropout_p, True)
    return weights.to(value.dtype) @ value
