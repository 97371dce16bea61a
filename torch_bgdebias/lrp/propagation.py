"""Relevance under any zennit composite, differentiable."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor, nn
from zennit.core import Composite

from torch_bgdebias.checks import check_finite, check_image, describe
from torch_bgdebias.lrp.blame import (
    LayerError,
    check_batch_norm,
    check_trainable,
    check_visible,
    propagate,
    refusal,
    where_infinite,
)
from torch_bgdebias.lrp.composites import FlexComposite
from torch_bgdebias.lrp.rules import trainable
from torch_bgdebias.lrp.scalars import Target, chosen
from torch_bgdebias.models import is_compiled, logits_of, original_module, run_eagerly

__all__ = ["relevance"]


def relevance(
    model: nn.Module, image: Tensor, target: Target, composite: Composite, create_graph: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Logits and relevance of ``image`` under a zennit composite, which is registered for this call only.

    Propagation starts with 1 at each chosen scalar, as with a one-hot output in zennit's ``Gradient`` attributor, and
    the heatmap is the same. With ``create_graph`` the composite's rules are made trainable first (see
    `trainable`): the gradient of the relevance to every parameter is the true one. The hooks are gone when the
    function returns, so they do not disturb the training loss's own backward pass.

    Args:
        model: any classifier that returns logits (B, K).
        image: (B, C, H, W) or (B, C, D, H, W).
        target: classes (B,) or (B, M); weights (B, K) of the logits; a function of the logits that returns (B,) or
            (B, M) scalars; ``None``: every logit, M = K.
        composite: `FlexComposite`, or any composite of ``BasicHook`` rules.
        create_graph: whether the relevance can be trained through; ``None`` says yes where gradients are enabled.

    Returns:
        logits (B, K) and relevance (B, M, C, H, W), or (B, M, C, D, H, W).

    Raises:
        TypeError: ``composite`` is none of zennit's.
        ValueError: relevance or logits that are not finite (seen on the CPU; the message names the layer where that
            begins), a target that does not fit, or a composite with canonizers together with ``create_graph``.
        RuntimeError: no gradient path from the logits to the image, or, with ``create_graph``, a layer that cannot be
            differentiated twice, which the message names.
    """
    check_image(image, volumes=True)
    if not isinstance(composite, Composite):
        raise TypeError(f"composite: expected a zennit Composite, got {describe(composite)}")
    create_graph = torch.is_grad_enabled() if create_graph is None else create_graph
    if create_graph and not isinstance(composite, FlexComposite):
        composite = trainable(composite)
    inner = original_module(model)
    check_batch_norm(inner)
    if isinstance(composite, FlexComposite):
        check_visible(inner)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if is_compiled(model):
            message = f"{type(inner).__name__} is compiled, which cannot be differentiated twice"
            warnings.warn(f"{message}: the original module is used", stacklevel=2)
            stack.enter_context(run_eagerly())
        image = image.clone() if image.is_inference() else image
        input_leaf = image if image.requires_grad else image.detach().requires_grad_()

        def forward() -> tuple[Tensor, Tensor]:
            logits = logits_of(inner(input_leaf))
            if logits.ndim != 2:
                raise ValueError(f"model output: expected logits (B, K), got {describe(logits)}")
            return logits, logits if target is None else chosen(logits, target)

        with composite.context(inner):
            logits, scalars = forward()
            heatmap = _checked(inner, forward, scalars, input_leaf, create_graph)
    check_finite(logits, name="logits")
    return (logits, heatmap) if create_graph else (logits.detach(), heatmap.detach())


def _checked(
    inner: nn.Module,
    forward: Callable[[], tuple[Tensor, Tensor]],
    scalars: Tensor,
    input_leaf: Tensor,
    create_graph: bool,
) -> Tensor:
    """The heatmaps of all scalars; errors name the layer."""

    def rerun(index: int = 0) -> tuple[Tensor, AbstractContextManager[None]]:
        return forward()[1][:, index].sum(), nullcontext()

    try:
        maps = [_propagated(scalar.sum(), input_leaf, create_graph) for scalar in scalars.unbind(1)]
    except LayerError as error:
        raise refusal(inner, error, rerun, create_graph=create_graph) from error
    heatmap = torch.stack(maps, 1)
    if create_graph:
        check_trainable(inner, heatmap, rerun)
    try:
        check_finite(heatmap.flatten(1), name="relevance")
    except ValueError as error:
        bad = ~torch.isfinite(heatmap.detach()).flatten(2).all(2).all(0)
        rerun_first_bad = functools.partial(rerun, int(bad.nonzero()[0]))
        raise ValueError(f"{error}; {where_infinite(inner, input_leaf.detach(), rerun_first_bad)}") from error
    return heatmap


def _propagated(scalar: Tensor, input_leaf: Tensor, create_graph: bool) -> Tensor:
    relevance: Tensor | None = None
    if scalar.requires_grad:
        (relevance,) = propagate(scalar, [input_leaf], create_graph=create_graph, retain_graph=True)
    if relevance is None:
        raise RuntimeError("no gradient path from the model's output to the image")
    return relevance
