"""The z^B rule at layers that take the image, whose pixels lie in a known box (S-FI; Montavon et al. 2017)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from torch_bgdebias.lrp.attention import frozen
from torch_bgdebias.lrp.carry import Bounds, Route, start
from torch_bgdebias.lrp.convolution import Geometry, convolve, input_gradient
from torch_bgdebias.lrp.switch import Switch

__all__ = ["InputLayer"]


class InputLayer:
    """A linear or convolution layer that takes the image, up to a place at which relevance stops.

    That place is the layer's own output, or that of the batch norm or the ReLU after it: then the layer is there twice,
    since its output may have other ways as well.

    Attributes:
        x: what entered it.
        z: W x + b.
        value: what has the relevance value times gradient: ``z``, or the ReLU's output.
        output: the same as a place: relevance is propagated to it by gradient, and stops there.
        passed: a copy of ``output`` as the model got it, free to change in place.
        node: what made ``passed``.
        weight, bias: live, a batch norm's scale and shift multiplied in.
        route: how ``x`` was made of the image.
        excess: of value zero, it says which part of the bias is a constant; ``None``: no part.
        rectified: a ReLU in place comes next, which damps the gradient by its own stabiliser.
    """

    def __init__(
        self,
        x: Tensor,
        output: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry | None,
        *,
        z: Tensor | None = None,
        excess: Tensor | None = None,
        route: Route = start,
    ) -> None:
        self.x, self.weight, self.bias, self.geometry, self.excess = x, weight, bias, geometry, excess
        self.route = route
        self.value, self.output, self.passed = output, output, output.clone()
        self.z = output if z is None else z
        self.node = self.passed.grad_fn
        self.rectified = False

    def normalized(self, y: Tensor, scale: Tensor, mean: Tensor, shift: Tensor | None, switch: Switch) -> InputLayer:
        """The layer with the batch norm y = (x - mean) scale + shift multiplied into it."""
        flat, mean = scale.reshape(-1), mean.reshape(-1)
        bias = (-mean if self.bias is None else self.bias - mean) * flat
        weight = self.weight * flat.view(-1, *(1,) * (self.weight.ndim - 1))
        bias = bias if shift is None else bias + shift
        return InputLayer(self.x, frozen(y, switch), weight, bias, self.geometry, route=self.route)

    def activated(self, a: Tensor, switch: Switch) -> InputLayer:
        """The layer up to its ReLU's output ``a``."""
        return InputLayer(
            self.x,
            frozen(a, switch),
            self.weight,
            self.bias,
            self.geometry,
            z=self.z,
            excess=self.excess,
            route=self.route,
        )

    def relevance(self, gradient: Tensor, low: Tensor, high: Tensor, epsilon: float) -> Tensor:
        """z^B: with s = R / (z_B + sign(z_B) epsilon), x W's - low W+'s - high W-'s, shaped like ``x``.

        Divided by the weights of the pixels in ``x`` (`torch_bgdebias.lrp.carry`), so that what is sent back from
        ``x`` to the image as a gradient is the image's relevance.

        z_B = W x - W+ low - W- high + relu(b), as in the original implementation, where the positive part of the
        bias takes part. R is the relevance of the output: output times the modified gradient, from which a ReLU's
        own stabiliser is taken back, since this layer brings its own.

        Args:
            gradient: modified gradient at ``output``.
            low: smallest valid pixels (1, C, H, W) of the image.
            high: largest valid pixels, the same.
            epsilon: stabiliser.
        """
        weight, bias, excess = self.weight, self.bias, self.excess
        bounds = self.route(Bounds(low, high, torch.ones_like(low)))
        low, high = self._as_input(bounds.low), self._as_input(bounds.high)
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        value = self.z.relu() + epsilon if self.rectified else self.value
        offset = self._apply(low, positive) + self._apply(high, negative)
        if bias is not None:  # z holds all of the bias, z_B its positive part
            offset = offset + self._per_channel((bias if excess is None else bias - excess).clamp(max=0))
        if excess is not None:
            offset = offset + self._per_channel(excess)
        share = _Share.apply(gradient, value, self.z, offset, epsilon)
        with_weights, plus = self._transposed(share, weight, positive)
        relevance = (self.x - high) * with_weights + (high - low) * plus  # W- = W - W+
        if self.route is start:
            return relevance
        gain = self._as_input(bounds.gain)
        return torch.where(gain == 0, 0, relevance / torch.where(gain == 0, 1, gain))

    def _as_input(self, bound: Tensor) -> Tensor:
        """Bounds of what entered in the shape of ``x``; pixels that the layer's own padding has added are zero."""
        if bound.numel() == len(bound) * self.x[0].numel():
            return bound.reshape(len(bound), *self.x.shape[1:])
        grown = [now - before for now, before in zip(self.x.shape[2:], bound.shape[2:], strict=True)]
        return F.pad(bound, [side for extra in reversed(grown) for side in (0, extra)])

    def _per_channel(self, bias: Tensor) -> Tensor:
        return bias if self.geometry is None else bias.view(-1, *(1,) * (self.x.ndim - 2))

    def _apply(self, x: Tensor, weight: Tensor) -> Tensor:
        x = x.to(weight.dtype)
        return F.linear(x, weight) if self.geometry is None else convolve(x, weight, None, self.geometry)

    def _transposed(self, share: Tensor, weight: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        """Both weights applied transposed, together where that is one product: ``share`` is the large tensor here."""
        share, x = share.to(weight.dtype), self.x.to(weight.dtype)
        if self.geometry is None:
            return share @ weight, share @ positive
        if self.geometry.groups > 1:
            with_weights, plus = (input_gradient(share, w, x, self.geometry) for w in (weight, positive))
            return with_weights, plus
        stacked = input_gradient(
            share, torch.cat([weight, positive], 1), x.repeat(1, 2, *(1,) * (x.ndim - 2)), self.geometry
        )
        with_weights, plus = stacked.chunk(2, 1)
        return with_weights, plus


class _Share(Function):
    """gradient value / (z_B + sign(z_B) epsilon) with z_B = z - offset; its derivatives in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, value: Tensor, z: Tensor, offset: Tensor, epsilon: float) -> Tensor:
        below = z - offset
        if epsilon > 0:
            below += (below >= 0).to(below.dtype).mul_(2 * epsilon).sub_(epsilon)
        else:  # a sum of parts >= 0 that is 0 has nothing to share out
            below.masked_fill_(below == 0, torch.inf)
        ctx.save_for_backward(gradient, value, below)
        ctx.shape = offset.shape
        return (gradient * value).div_(below)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        gradient, value, below = ctx.saved_tensors
        to_value = outer / below
        to_gradient = to_value * value
        to_value *= gradient
        to_offset = (to_gradient * gradient).div_(below)
        return to_gradient, to_value, -to_offset, to_offset.sum_to_size(ctx.shape), None
