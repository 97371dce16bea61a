"""The z^B rule at layers that take the image, whose pixels lie in a known box (S-FI; Montavon et al. 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_bgdebias.lrp.convolution import Geometry, convolve, input_gradient

__all__ = ["InputLayer"]


class InputLayer:
    """A linear or convolution layer that takes the image, with the batch norm after it if there is one.

    Attributes:
        x: what entered it.
        output: what left it: relevance is propagated to this place by gradient, and stops there.
        passed: a copy of ``output`` as the model got it, free to change in place.
        node: what made ``passed``.
        weight, bias: live, the batch norm's scale and shift multiplied in.
        excess: of value zero, it says which part of the bias is a constant; ``None``: no part.
        rectified: a ReLU comes next, which damps the gradient by its own stabiliser.
    """

    def __init__(
        self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry | None
    ) -> None:
        self.x, self.geometry = x, geometry
        self.rectified = False
        self.merge(output, weight, bias)

    def merge(self, output: Tensor, weight: Tensor, bias: Tensor | None, excess: Tensor | None = None) -> Tensor:
        """Make the layer another one, whose output, weight and bias these are; returns what the model is to get."""
        self.output, self.passed = output, output.clone()
        self.node = self.passed.grad_fn
        self.weight, self.bias, self.excess = weight, bias, excess
        return self.passed

    def fold(self, y: Tensor, scale: Tensor, mean: Tensor, shift: Tensor | None) -> Tensor:
        """Multiply the batch norm y = (x - mean) scale + shift into the layer; returns what the model is to get."""
        flat, mean = scale.reshape(-1), mean.reshape(-1)
        bias = (-mean if self.bias is None else self.bias - mean) * flat
        weight = self.weight * flat.view(-1, *(1,) * (self.weight.ndim - 1))
        return self.merge(y, weight, bias if shift is None else bias + shift)

    def relevance(self, gradient: Tensor, low: Tensor, high: Tensor, epsilon: float) -> Tensor:
        """z^B: with s = R / (z_B + sign(z_B) epsilon), x W's - low W+'s - high W-'s, shaped like ``x``.

        z_B = W x - W+ low - W- high + relu(b), as in the original implementation, where the positive part of the
        bias takes part. R is the relevance of the output: output times the modified gradient, from which a ReLU's
        own stabiliser is taken back, since this layer brings its own.

        Args:
            gradient: modified gradient at ``output``.
            low: smallest valid pixels (1, C, H, W) of the image.
            high: largest valid pixels, the same.
            epsilon: stabiliser.
        """
        z, weight, bias, excess = self.output, self.weight, self.bias, self.excess
        low, high = self._as_input(low), self._as_input(high)
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        share = gradient * (z.relu() + epsilon if self.rectified else z)
        boxed = z - self._apply(low, positive) - self._apply(high, negative)
        if bias is not None:  # z holds all of the bias, z_B its positive part
            boxed = boxed - self._per_channel((bias if excess is None else bias - excess).clamp(max=0))
        if excess is not None:
            boxed = boxed - self._per_channel(excess)
        share = share / torch.where(boxed >= 0, boxed + epsilon, boxed - epsilon)
        return (
            self.x * self._transposed(share, weight)
            - low * self._transposed(share, positive)
            - high * self._transposed(share, negative)
        )

    def _as_input(self, bound: Tensor) -> Tensor:
        """An image's bounds in the shape of ``x``; pixels that padding has added are zero."""
        if bound.numel() == self.x[:1].numel():
            return bound.reshape(1, *self.x.shape[1:])
        grown = [now - before for now, before in zip(self.x.shape[2:], bound.shape[2:], strict=True)]
        return F.pad(bound, [side for more in reversed(grown) for side in (0, more)])

    def _per_channel(self, bias: Tensor) -> Tensor:
        return bias if self.geometry is None else bias.view(-1, *(1,) * (self.x.ndim - 2))

    def _apply(self, x: Tensor, weight: Tensor) -> Tensor:
        x = x.to(weight.dtype)
        return F.linear(x, weight) if self.geometry is None else convolve(x, weight, None, self.geometry)

    def _transposed(self, share: Tensor, weight: Tensor) -> Tensor:
        if self.geometry is None:
            return share.to(weight.dtype) @ weight
        return input_gradient(share.to(weight.dtype), weight, self.x.to(weight.dtype), self.geometry)
