"""Schema, fake kernel and gradients of ``torch_bgdebias::voronoi_composite``.

Python owns the schema, so that the operator exists without the compiled extension; that only adds faster kernels
for the CPU and CUDA dispatch keys (csrc/).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_bgdebias.ops.plain import composite_plain
from torch_bgdebias.precision import working_dtype

__all__ = ["NAME", "composite"]

NAME = "torch_bgdebias::voronoi_composite"

torch.library.define(
    NAME,
    "(Tensor foreground, Tensor mask, Tensor bank, Tensor sites, Tensor index, Tensor offset,"
    " Tensor? mean, Tensor? std) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.impl(NAME, "CompositeExplicitAutograd")(composite_plain)

#: the operator as the dispatcher sees it: no checks, float64 sites, mean and std in the compute dtype
composite = torch.ops.torch_bgdebias.voronoi_composite.default


def _fake(
    foreground: Tensor,
    mask: Tensor,
    bank: Tensor,
    sites: Tensor,
    index: Tensor,
    offset: Tensor,
    mean: Tensor | None,
    std: Tensor | None,
) -> Tensor:
    return foreground.new_empty(foreground.shape)


torch.library.register_fake(NAME, _fake)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Made of differentiable operations, so that it can be differentiated again."""
    foreground, mask, *background = ctx.saved_tensors
    grad_foreground = grad * mask if ctx.needs_input_grad[0] else None
    grad_mask = None
    if ctx.needs_input_grad[1]:
        dtype = working_dtype(foreground.dtype)  # the sum over channels in float32 for the half types
        nothing = torch.zeros_like(foreground, dtype=dtype, requires_grad=False)
        pixels = composite(nothing, nothing[:, :1], *background)
        difference = foreground.to(dtype) - pixels
        grad_mask = (grad.to(dtype) * difference).sum(1, keepdim=True).to(mask.dtype)
    return grad_foreground, grad_mask, None, None, None, None, None, None


torch.library.register_autograd(NAME, _backward, setup_context=_setup_context)
