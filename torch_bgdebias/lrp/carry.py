"""Carries the image's value bounds through the operations before the first layer.

z^B needs the smallest and the largest values that may enter a layer. Where the layer takes the image itself they are
those of the image. Often something lies between: padding of a stem, a normalisation, channels in another order, added
coordinates, resizing. All of these are affine functions x~ = A x + c of the image x, so bounds pass through them:

- where each value of x~ comes from one of x at most (padding, cropping, flips, permutations, copies, scale and shift),
  or from several with weights >= 0 (resizing, pooling by average), the bounds of x~ are A and c applied to those of x,
  in their order where a scale is negative. They are exact: each value of x~ reaches them;
- the layer's z^B gives the relevance of x~. It goes back to the pixels that a value was made of, in proportion to their
  weights in A: all of it to the pixel where there is one, none of it from constants. So a scale and a shift change
  nothing, and a normalisation inside of the model gives the heatmap of one outside.

What is no such function (bicubic resizing, a lookup, a clamp) ends the way: the image then counts as an activation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_bgdebias.lrp.arguments import bind
from torch_bgdebias.lrp.switch import depends_on

__all__ = ["STEPS", "Bounds", "Route", "start"]


class Bounds(NamedTuple):
    """What is known of each value of a tensor; of one sample (1, ...) where all samples have the same.

    Attributes:
        low, high: the smallest and largest value.
        gain: sum of the weights of the pixels that the value is made of; 0 of constants.
    """

    low: Tensor
    high: Tensor
    gain: Tensor


#: from the image's bounds to those of what was made of it
Route: TypeAlias = Callable[[Bounds], Bounds]


def start(bounds: Bounds) -> Bounds:
    """The image itself."""
    return bounds


@dataclasses.dataclass(slots=True)
class Step:
    """One operation on something that was made of the image.

    Attributes:
        func, args, kwargs: the torch function and its arguments.
        y: what it returned.
        x, route: what it was done to, and how that was made of the image.
        image: where the way begins.
        route_of: says how another tensor was made of the image, ``None`` if it was not.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    y: Any
    x: Tensor
    route: Route
    image: Tensor | None
    route_of: Callable[[Tensor], Route | None]

    def forget(self) -> None:
        """Leave what `again` needs: routes outlive the pass, and must not hold its tensors, nor itself."""
        self.args = (None, *self.args[1:])
        self.kwargs = {name: value for name, value in self.kwargs.items() if name != "input"}
        self.y = self.x = self.image = self.route_of = None  # type: ignore[assignment]

    def again(self, bound: Tensor) -> Any:
        """The operation on a bound."""
        return self.func(bound, *self.args[1:], **self.kwargs)


#: gives the route to a step's output, or those to several outputs, or ``None`` where the way ends
Kind: TypeAlias = Callable[[Step], "Route | list[Route] | None"]


def _expanded(bound: Tensor, batch: int) -> Tensor:
    """A bound that is one sample's, or all samples', as all samples', without copies."""
    return bound.expand(batch, *bound.shape[1:])


def _single(bound: Tensor, batch: int) -> Tensor:
    """A bound as one sample's, where all samples share its memory; else as it is."""
    same_for_all = bound.ndim > 0 and bound.shape[0] == batch and bound.stride(0) == 0
    return bound[:1] if same_for_all else bound


def _mapped(step: Step, change: Callable[[Tensor], Tensor]) -> Route:
    return lambda root: Bounds(*(change(bound) for bound in step.route(root)))


def _view(step: Step) -> Route | list[Route]:
    """Values that are chosen or put elsewhere, as views: what all samples share stays shared."""
    batch = len(step.x)

    def change(bound: Tensor, index: int | None = None) -> Tensor:
        view = step.again(_expanded(bound, batch))
        return _single(view if index is None else view[index], batch)

    def nth(index: int) -> Route:
        return _mapped(step, lambda bound: change(bound, index))

    if isinstance(step.y, (tuple, list)):
        return [nth(i) for i in range(len(step.y))]
    return _mapped(step, change)


def _reshape(step: Step) -> Route | None:
    shape, batch = step.y.shape, len(step.x)
    if not shape or shape[0] != batch:
        return _mapped(step, lambda bound: _expanded(bound, batch).reshape(shape))
    return _mapped(step, lambda bound: bound.reshape(len(bound), *shape[1:]))


def _moved(step: Step) -> Route | None:
    """The same for each sample: flips, shifts and choices along the other dimensions, patches, pooling."""
    dims = _dims_moved(step)
    if dims is None or any(dim % step.x.ndim == 0 for dim in dims):
        return None
    return _mapped(step, step.again)


def _dims_moved(step: Step) -> Sequence[int] | None:
    """Along which dimensions values change their places; ``None`` where they are moved as one long row."""
    if step.func in (torch.flip, Tensor.flip):
        dims = step.kwargs.get("dims", step.args[1:])
        dims = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    elif step.func in (torch.roll, Tensor.roll):
        dims = bind(step.args, step.kwargs, "input", shifts=None, dims=())[2]
    elif step.func in (torch.index_select, Tensor.index_select):
        dims = bind(step.args, step.kwargs, "input", dim=None)[1]
    else:
        return ()
    dims = (dims,) if isinstance(dims, int) else dims
    return dims or None


def _getitem(step: Step) -> Route | list[Route] | None:
    index = step.args[1]
    parts = index if isinstance(index, tuple) else (index,)
    if all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
        return _view(step)
    keeps_batch = isinstance(parts[0], slice) and parts[0] == slice(None)
    return _mapped(step, step.again) if keeps_batch else None


def _pad(step: Step) -> Route | None:
    x, pad, mode, value = bind(step.args, step.kwargs, "input", pad=None, mode="constant", value=None)
    if len(pad) // 2 >= x.ndim:
        return None

    def route(root: Bounds) -> Bounds:
        low, high, gain = step.route(root)
        if mode != "constant":
            return Bounds(*(F.pad(bound, pad, mode) for bound in (low, high, gain)))
        return Bounds(F.pad(low, pad, mode, value), F.pad(high, pad, mode, value), F.pad(gain, pad))

    return route


def _resize(step: Step) -> Route | None:
    mode = bind(step.args, step.kwargs, "input", size=None, scale_factor=None, mode="nearest")[3]
    return _mapped(step, step.again) if mode in ("nearest", "nearest-exact", "linear", "bilinear", "area") else None


_PLUS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__}
_MINUS = {torch.sub, torch.subtract, Tensor.sub, Tensor.sub_, Tensor.subtract, Tensor.__sub__, Tensor.__isub__}
_FROM = {torch.rsub, Tensor.__rsub__}
_TIMES = {
    torch.mul, torch.multiply, Tensor.mul, Tensor.mul_, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__,
    Tensor.__imul__,
}  # fmt: skip
_OVER = {
    torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.div_, Tensor.divide, Tensor.true_divide,
    Tensor.__truediv__, Tensor.__itruediv__,
}  # fmt: skip


def _scale_or_shift(step: Step) -> Route | None:
    """One other operand, a number or a tensor that has nothing of the image in it."""
    a, b, *_ = bind(step.args, step.kwargs, "input", other=None)
    operand = b if step.x is a else a
    if len(step.args) > 2 or set(step.kwargs) - {"input", "other"}:
        return None
    if step.x is not a and step.func in (*_OVER, *_MINUS):
        return None
    if isinstance(operand, Tensor) and (_depends_on_image(step, operand) or step.y.shape != step.x.shape):
        return None
    if not isinstance(operand, (int, float, Tensor)):
        return None
    constant = operand.detach().clone() if isinstance(operand, Tensor) and not operand.requires_grad else operand
    scaled, change = _arithmetic(step.func, constant)

    def route(root: Bounds) -> Bounds:
        low, high, gain = step.route(root)
        low, high = change(low), change(high)
        return Bounds(torch.minimum(low, high), torch.maximum(low, high), scaled(gain))

    return route


def _arithmetic(func: Any, c: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The functions that an operation with ``c`` applies to weights and to values."""
    if func in _PLUS:
        return (lambda g: g), (lambda v: v + c)
    if func in _MINUS:
        return (lambda g: g), (lambda v: v - c)
    if func in _FROM:
        return (lambda g: -g), (lambda v: c - v)
    if func in _TIMES:
        return (lambda g: g * c), (lambda v: v * c)
    return (lambda g: g / c), (lambda v: v / c)


def _negated(step: Step) -> Route:
    def route(root: Bounds) -> Bounds:
        low, high, gain = step.route(root)
        return Bounds(-high, -low, -gain)

    return route


def _depends_on_image(step: Step, tensor: Tensor) -> bool:
    return tensor.requires_grad and depends_on(tensor, step.image)


def _cat(step: Step) -> Route | None:
    tensors, dim = bind(step.args, step.kwargs, "tensors", dim=0)
    if dim % step.y.ndim == 0:
        return None
    routes: list[Route] = []
    for tensor in tensors:
        route = step.route_of(tensor)
        if route is None and _depends_on_image(step, tensor):
            return None
        routes.append(_constant(tensor) if route is None else route)

    def joined(root: Bounds) -> Bounds:
        parts = [route(root) for route in routes]
        lead = max(len(part.low) for part in parts)
        return Bounds(
            *(torch.cat([_expanded(bound, lead) for bound in same], dim) for same in zip(*parts, strict=True))
        )

    return joined


def _constant(tensor: Tensor) -> Route:
    value = _single(tensor, len(tensor))
    value = value if value.requires_grad else value.clone()
    return lambda _: Bounds(value, value, torch.zeros_like(value))


def _repeat(step: Step) -> Route | None:
    counts = step.args[1] if len(step.args) == 2 and not isinstance(step.args[1], int) else step.args[1:]
    return _mapped(step, step.again) if len(counts) == step.x.ndim and counts[0] == 1 else None


_VIEWS: tuple[Any, ...] = (
    torch.permute, Tensor.permute, torch.transpose, Tensor.transpose, torch.movedim, Tensor.movedim, torch.swapaxes,
    Tensor.swapaxes, torch.moveaxis, Tensor.moveaxis, torch.select, Tensor.select, torch.narrow, Tensor.narrow,
    Tensor.expand, Tensor.expand_as, torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.unbind, Tensor.unbind,
    Tensor.unfold,
)  # fmt: skip
_RESHAPES: tuple[Any, ...] = (
    Tensor.view, Tensor.view_as, torch.reshape, Tensor.reshape, torch.flatten, Tensor.flatten, torch.unflatten,
    Tensor.unflatten, torch.squeeze, Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze,
)  # fmt: skip
_MOVES: tuple[Any, ...] = (
    torch.flip, Tensor.flip, torch.roll, Tensor.roll, torch.index_select, Tensor.index_select, F.pixel_unshuffle,
    torch.pixel_unshuffle, F.pixel_shuffle, torch.pixel_shuffle, F.unfold, F.avg_pool2d, F.adaptive_avg_pool2d,
)  # fmt: skip

#: torch function -> how bounds pass through it
STEPS: dict[Any, Kind] = {
    **dict.fromkeys(_VIEWS, _view),
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(_MOVES, _moved),
    Tensor.__getitem__: _getitem,
    Tensor.repeat: _repeat,
    F.pad: _pad,
    F.interpolate: _resize,
    **dict.fromkeys((*_PLUS, *_MINUS, *_FROM, *_TIMES, *_OVER), _scale_or_shift),
    **dict.fromkeys((torch.neg, Tensor.neg, Tensor.__neg__), _negated),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
}
