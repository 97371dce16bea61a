"""Replacements of torch functions in an explained forward pass: activations, normalisation, attention, layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_bgdebias.lrp import normalization
from torch_bgdebias.lrp.activations import RATIOS, rectify, smooth
from torch_bgdebias.lrp.arguments import bind, channel_constant, convolution_arguments, linear_arguments
from torch_bgdebias.lrp.attention import attend, frozen
from torch_bgdebias.lrp.convolution import convolve
from torch_bgdebias.lrp.input_layer import InputLayer
from torch_bgdebias.lrp.pass_state import PassState
from torch_bgdebias.lrp.switch import Switch, needs_graph

__all__ = ["ADDITIONS", "HANDLERS", "MULTIPLICATIONS", "Handler"]

#: called with the pass, the torch function, its positional and its keyword arguments
Handler: TypeAlias = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def _relu(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    x, inplace = bind(args, kwargs, "input", inplace=False)
    return _rectified(mode, func, args, kwargs, x, None, inplace)


def _relu_inplace(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    (x,) = bind(args, kwargs, "input")
    return _rectified(mode, func, args, kwargs, x, None, True)


def _relu6(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    x, inplace = bind(args, kwargs, "input", inplace=False)
    return _rectified(mode, func, args, kwargs, x, 6.0, inplace, keep_input=not inplace)


def _hardtanh(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    x, low, high, inplace = bind(args, kwargs, "input", min_val=-1.0, max_val=1.0, inplace=False)
    if low != 0 or high <= 0:
        return func(*args, **kwargs)
    inplace = inplace or func is F.hardtanh_
    return _rectified(mode, func, args, kwargs, x, float(high), inplace, keep_input=not inplace)


def _clamp(mode: PassState, func: Any, args: Any, kwargs: Any, *, inplace: bool = False) -> Any:
    x, low, high = bind(args, kwargs, "input", min=None, max=None)
    simple = isinstance(low, (int, float)) and low == 0 and (high is None or isinstance(high, (int, float)))
    if not simple or (high is not None and high <= 0):
        return func(*args, **kwargs)
    ceiling = None if high is None else float(high)
    return _rectified(mode, func, args, kwargs, x, ceiling, inplace, keep_input=True)


def _threshold(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    x, threshold, value, inplace = bind(args, kwargs, "input", threshold=None, value=None, inplace=False)
    if threshold != 0 or value != 0:
        return func(*args, **kwargs)
    inplace = inplace or func is torch.threshold_
    return _rectified(mode, func, args, kwargs, x, None, inplace, keep_input=True)


def _rectified(
    mode: PassState,
    func: Any,
    args: Any,
    kwargs: Any,
    x: Tensor,
    ceiling: float | None,
    inplace: bool,
    *,
    keep_input: bool = False,
) -> Any:
    if mode.plain or not needs_graph(x) or "out" in kwargs:
        return func(*args, **kwargs)
    layer = mode.boxed_layer(x) if mode.epsilon > 0 else None
    a = rectify(x, mode.switch, mode.epsilon, ceiling=ceiling, inplace=inplace, keep_input=keep_input)
    if layer is None:
        return a
    if inplace:  # from here on the layer's output is the ReLU's
        layer.rectified = True
        return a
    return mode.box(layer.activated(a, mode.switch), x)


def _smooth(name: str, *options: str) -> Handler:
    """Handler of a smooth activation; ``options`` are f's own parameters, by position after the input."""

    def handle(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
        x = args[0] if args else kwargs["input"]
        if mode.plain or not needs_graph(x):
            return func(*args, **kwargs)
        arguments = dict(zip(("input", *options, "inplace"), args, strict=False)) | kwargs
        if arguments.pop("inplace", False) or getattr(func, "__name__", "").endswith("_"):
            # the value of x is needed later: compute from a copy, then overwrite the tensor in place
            source = x.clone()
            y = func(source.clone(), *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
            return x.copy_(smooth(y, source, mode.switch, _ratio(name, arguments, options)))
        return smooth(func(*args, **kwargs), x, mode.switch, _ratio(name, arguments, options))

    return handle


def _ratio(name: str, arguments: dict[str, Any], options: tuple[str, ...]) -> Callable[..., Tensor]:
    selected = {key: arguments[key] for key in options if key in arguments}
    return functools.partial(RATIOS[name], **selected) if selected else RATIOS[name]


def _hardsigmoid(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    """Written out: torch has no second derivative of it."""
    x, inplace = bind(args, kwargs, "input", inplace=False)
    if not needs_graph(x):
        return func(*args, **kwargs)
    y = torch.clamp(x + 3, 0, 6) / 6
    return x.copy_(y) if inplace else y


def _softmax(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    output = func(*args, **kwargs)
    return output if mode.plain else frozen(output, mode.switch)


def _attention(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
    if not needs_graph(*tensors):
        return func(*args, **kwargs)
    if not mode.plain:
        return attend(mode.switch, *args, **kwargs)
    return attend(Switch(), *args, **kwargs)  # a switch that is never turned on


def _batch_norm(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    x, *parameters = bind(
        args, kwargs, "input", running_mean=None, running_var=None, weight=None, bias=None, training=False,
        momentum=0.1, eps=1e-5,
    )  # fmt: skip
    training = parameters[4]
    if not needs_graph(x) or (training and (mode.plain or mode.batch_norm == "exact")):
        return func(*args, **kwargs)
    layer = mode.boxed_layer(x)
    y, scale, mean = normalization.batch_norm(mode.switch, x, *parameters, live_mean=layer is not None)
    return y if layer is None else mode.box(layer.normalized(y, scale, mean, parameters[3], mode.switch), x)


def _normalization(function: Callable[..., Tensor], *names: str) -> Handler:
    def handle(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
        arguments = dict(zip(("input", *names), args, strict=False)) | kwargs
        x = arguments.pop("input")
        if mode.plain or not needs_graph(x):
            return func(*args, **kwargs)
        arguments.pop("cudnn_enabled", None)
        arguments.pop("cudnn_enable", None)
        return function(mode.switch, x, **arguments)

    return handle


def _convolution(dims: int) -> Handler:
    def handle(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
        image, weight, bias = bind(args, kwargs, "input", weight=None, bias=None)
        if image.ndim != dims + 2 or not needs_graph(image, weight, bias):
            return func(*args, **kwargs)
        route = mode.route_of(image)
        x, weight, bias, geometry = convolution_arguments(dims, args, kwargs)
        y = convolve(x, weight, bias, geometry, mode.skip(image, weight, boxed=route is not None))
        if route is None:
            return y
        return mode.box(InputLayer(x, y, weight, bias, geometry, route=route))

    return handle


def _linear(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    x, weight, bias = linear_arguments(args, kwargs)
    if not needs_graph(x, weight, bias):
        return func(*args, **kwargs)
    route = mode.route_of(x)
    y = convolve(x, weight, bias, None, mode.skip(x, weight, boxed=route is not None))
    if route is None:
        return y
    return mode.box(InputLayer(x, y, weight, bias, None, route=route))


def _frozen_norm(mode: PassState, func: Any, args: Any, kwargs: Any) -> Any:
    """Frozen batch norm, a product and a sum with constants of the channels, joins the layer that takes the image."""
    y = func(*args, **kwargs)
    constant = channel_constant(args, kwargs) if mode.input_layers and not mode.plain else None
    layer = None if constant is None else mode.boxed_layer(constant[0])
    if constant is None or layer is None or layer.geometry is None:
        return y
    values = constant[1].to(y.dtype)
    ones, zeros = torch.ones_like(values), torch.zeros_like(values)
    if func in MULTIPLICATIONS:
        return mode.box(layer.normalized(y, values, zeros, None, mode.switch), constant[0])
    return mode.box(layer.normalized(y, ones, zeros, values, mode.switch), constant[0])


MULTIPLICATIONS = (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__)
ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)

#: torch function -> what to do instead
HANDLERS: dict[Any, Handler] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), _relu_inplace),
    F.relu6: _relu6,
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    **dict.fromkeys((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip, torch.clamp_min, Tensor.clamp_min), _clamp),
    **dict.fromkeys(
        (torch.clamp_, torch.clip_, Tensor.clamp_, Tensor.clip_, torch.clamp_min_, Tensor.clamp_min_),
        functools.partial(_clamp, inplace=True),
    ),
    **dict.fromkeys((F.threshold, torch.threshold, torch.threshold_), _threshold),
    F.gelu: _smooth("gelu", "approximate"),
    F.silu: _smooth("silu"),
    F.hardswish: _smooth("hardswish"),
    F.hardsigmoid: _hardsigmoid,
    F.mish: _smooth("mish"),
    **dict.fromkeys((F.elu, F.elu_), _smooth("elu", "alpha")),
    F.selu: _smooth("selu"),
    F.celu: _smooth("celu", "alpha"),
    F.softsign: _smooth("softsign"),
    F.tanhshrink: _smooth("tanhshrink"),
    **dict.fromkeys((F.tanh, torch.tanh, Tensor.tanh, torch.tanh_, Tensor.tanh_), _smooth("tanh")),
    **dict.fromkeys((torch.selu, torch.selu_), _smooth("selu")),
    **dict.fromkeys((torch.celu, torch.celu_), _smooth("celu", "alpha")),
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax, F.softmin), _softmax),
    F.scaled_dot_product_attention: _attention,
    F.batch_norm: _batch_norm,
    F.layer_norm: _normalization(normalization.layer_norm, "normalized_shape", "weight", "bias", "eps"),
    torch.layer_norm: _normalization(
        normalization.layer_norm, "normalized_shape", "weight", "bias", "eps", "cudnn_enable"
    ),
    F.group_norm: _normalization(normalization.group_norm, "num_groups", "weight", "bias", "eps"),
    torch.group_norm: _normalization(
        normalization.group_norm, "num_groups", "weight", "bias", "eps", "cudnn_enabled"
    ),
    F.instance_norm: _normalization(
        normalization.instance_norm, "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum",
        "eps",
    ),
    **dict.fromkeys(
        (F.rms_norm, torch.rms_norm), _normalization(normalization.rms_norm, "normalized_shape", "weight", "eps")
    ),
    F.local_response_norm: _normalization(normalization.local_response_norm, "size", "alpha", "beta", "k"),
    torch.conv1d: _convolution(1),
    torch.conv2d: _convolution(2),
    torch.conv3d: _convolution(3),
    F.linear: _linear,
    **dict.fromkeys((*MULTIPLICATIONS, *ADDITIONS), _frozen_norm),
}  # fmt: skip
