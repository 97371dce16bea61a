"""Looking into a borrowed model: its last linear layer, its logits, what passes through a layer, its modes.

Nothing here adds to a model. Hooks live inside a ``with`` block and are gone afterwards, also after an exception.
"""

from __future__ import annotations

import difflib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from torch_bgdebias.checks import describe
from torch_bgdebias.sharded import plain_type

__all__ = [
    "LayerTap",
    "LogitsKey",
    "as_map",
    "call_behind_output",
    "check_one_device",
    "device_of",
    "dtype_of",
    "eval_mode",
    "evaluating",
    "find_head",
    "get_layer",
    "logits_of",
    "original_module",
    "run_eagerly",
    "tap",
    "uncompiled_name",
]

#: how to find the logits in a model's output: index, key or attribute, function of the output, or None (a tensor)
LogitsKey: TypeAlias = "int | str | Callable[[Any], Tensor] | None"

D = TypeVar("D")


def original_module(module: nn.Module) -> nn.Module:
    """The module under the wrappers of ``torch.compile``, (distributed) data parallel and Fabric; same parameters."""
    inner: object = getattr(module, "_orig_mod", None)
    wrapped = isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    if inner is None and (
        wrapped or type(module).__name__ == "_FabricModule"
    ):  # recognised by name, without the package
        inner = module.module
    if isinstance(inner, nn.Module):
        return original_module(inner)
    return module


def device_of(model: nn.Module, default: torch.device | str = "cpu") -> torch.device:
    """Where the model's first parameter, else its first buffer, lies; ``default`` for a model that has neither."""
    device = next((x.device for x in (*model.parameters(), *model.buffers())), None)
    return torch.device(default) if device is None else device


def dtype_of(model: nn.Module, default: D) -> torch.dtype | D:
    """The dtype of the model's first floating point parameter; ``default`` if it has none."""
    return next((x.dtype for x in model.parameters() if x.is_floating_point()), default)


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` wraps this module or one inside it (such modules do not run newly added hooks).

    A compiled LightningModule that Lightning has unwrapped is one, too: its steps are what is compiled.
    """
    return any(
        hasattr(m, "_orig_mod") or m._compiled_call_impl is not None or getattr(m, "_compiler_ctx", None) is not None
        for m in module.modules()
    )


def check_one_device(model: nn.Module, *, what: str) -> None:
    """Refuse a model with parts that ``nn.DataParallel`` copies to several devices, out of sight of hooks.

    Args:
        model: the model.
        what: what cannot be done with it.

    Raises:
        TypeError: it has such parts, or is one.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.DataParallel) and len(part.device_ids or ()) > 1:
            where = f"{name!r} of {type(model).__name__}" if name else "the model"
            raise TypeError(
                f"model: {where} is an nn.DataParallel, which runs copies of its layers on {len(part.device_ids)} "
                f"devices with a part of the batch each, and {what} needs the layers themselves: pass the module "
                "inside it (.module), or train with a process a device (DistributedDataParallel, strategy='ddp')"
            )


def get_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule that ``model`` calls under ``name``, as in ``named_modules``, shared ones under all their names.

    The wrappers of ``torch.compile`` may be left out or named: ``"net.fc"`` is ``"net._orig_mod.fc"``, whether or not
    the network is compiled. A layer that is compiled itself is returned as it is called, wrapped;
    `original_module` looks inside, as does its full name.

    Raises:
        LookupError: no such layer; the message lists near names.
        TypeError: a module, or a number.
    """
    argument: object = name
    if not isinstance(argument, str):
        own_name = next((path for path, module in model.named_modules() if path and module is argument), "")
        hint = f"; its name is {own_name!r}" if own_name else ", as model.named_modules() lists them"
        raise TypeError(f"layer: expected the name of a layer, got {describe(argument)}{hint}")
    layers: dict[str, nn.Module] = {}
    path: str
    module: nn.Module
    for path, module in model.named_modules(remove_duplicate=False):
        if path and path == name:
            return module
        if uncompiled_name(path):
            layers.setdefault(uncompiled_name(path), module)  # the wrapper comes before what it wraps
    if uncompiled_name(name) in layers:
        return layers[uncompiled_name(name)]
    close_matches = difflib.get_close_matches(name, layers, n=5, cutoff=0.4) or list(layers)[-5:]
    raise LookupError(f"layer {name!r} is not in {type(model).__name__}; near names: {', '.join(close_matches)}")


def find_head(model: nn.Module, *, num_classes: int | None = None) -> tuple[str, nn.Linear]:
    """The last linear layer, whose input is the embedding (B, D) and whose output is the logits (B, K).

    timm models are asked (``get_classifier``). Elsewhere it is the linear layer registered last, unless another one
    has the same number of outputs: then only the user knows.

    Raises:
        LookupError: no linear layer, or more than one candidate; the message lists them.
    """
    names = {id(m): uncompiled_name(n) for n, m in model.named_modules()}
    ask = getattr(model, "get_classifier", None)
    if callable(ask):
        head = ask()
        if isinstance(head, nn.Linear) and id(head) in names:
            return names[id(head)], head
    linear = [
        (uncompiled_name(n), m)
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and plain_type(m) is nn.Linear
    ]
    if not linear:
        raise LookupError(f"{type(model).__name__} has no nn.Linear layer: name the layer whose input is the embedding")
    outputs = num_classes if num_classes is not None else linear[-1][1].out_features
    fitting = [(n, m) for n, m in linear if m.out_features == outputs]
    if len(fitting) == 1:
        return fitting[0]
    layers_text = ", ".join(f"{n} ({m.in_features} -> {m.out_features})" for n, m in (fitting or linear)[-8:])
    problem = "more than one layer could be" if fitting else f"no layer with {outputs} outputs is"
    raise LookupError(f"{problem} the last linear layer of {type(model).__name__}; name one of: {layers_text}")


def logits_of(output: Any, key: LogitsKey = None) -> Tensor:
    """The logits in a model's output; those of one place an image, (B, K, 1, 1), as (B, K).

    Args:
        output: a tensor, or a tuple, mapping or object that holds the logits.
        key: where they are; ``None`` takes a tensor as it is, and otherwise an entry called ``logits``.

    Raises:
        TypeError: there is no telling, or what was found is no tensor; the message says what the output holds.
    """
    logits: Any
    if callable(key):
        logits = key(output)
    elif key is None:
        logits = output if isinstance(output, Tensor) else _entry(output, "logits")
    else:
        logits = _entry(output, key)
    if not isinstance(logits, Tensor):
        contents = list(output) if isinstance(output, Mapping) else type(output).__name__
        hint = "pass logits=, the key, index or function that finds them"
        raise TypeError(f"model output: no logits at {key!r}, it is {contents}; {hint}")
    if logits.ndim > 2 and set(logits.shape[2:]) == {1}:  # a network of convolutions alone: one place an image
        return logits.flatten(1)
    return logits


class LayerTap:
    """Inputs and outputs that passed through some layers while a `tap` was open, one entry per call."""

    def __init__(self, names: Sequence[str]) -> None:
        self.inputs: dict[str, list[Any]] = {name: [] for name in names}
        self.outputs: dict[str, list[Any]] = {name: [] for name in names}


@contextmanager
def tap(model: nn.Module, names: Sequence[str], *, apart: bool = False) -> Iterator[LayerTap]:
    """Record what enters and leaves the named layers, graph included, while the block is open.

    A compiled model runs eagerly meanwhile, with a warning: its graphs do not contain hooks that are added later. Calls
    in other threads are not recorded.

    Args:
        model: the model.
        names: of its layers.
        apart: send copies of the outputs on, so that what follows and works in place (``nn.ReLU(inplace=True)``) does
            not change what was recorded.

    Yields:
        LayerTap: ``inputs[name]`` holds the first positional input of each call, ``outputs[name]`` what it returned.
    """
    layer_tap, with_graph, thread = LayerTap(names), torch.is_grad_enabled(), threading.get_ident()

    def record(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if threading.get_ident() != thread:
                return None
            layer_tap.inputs[name].append(args[0] if args else next(iter(kwargs.values()), None))
            layer_tap.outputs[name].append(output)
            # what a reentrant checkpoint runs has no graph; it makes one of the very tensor that it gets
            copied = apart and torch.is_grad_enabled() == with_graph
            return tree_map_only(Tensor, Tensor.clone, output) if copied else None

        return hook

    with ExitStack() as stack:
        if is_compiled(model):
            warnings.warn(f"{type(model).__name__} is compiled: it runs eagerly while layers are read", stacklevel=3)
            stack.enter_context(run_eagerly())
        for name in names:
            handle = get_layer(model, name).register_forward_hook(record(name), with_kwargs=True)
            stack.callback(handle.remove)
        yield layer_tap


def call_behind_output(outputs: Sequence[Any], output: Any) -> int | None:
    """Which of a layer's calls in one pass belongs to the model's output: the only one, or the one that is in it.

    Args:
        outputs: what the layer returned, call by call.
        output: what the model returned.
    """
    if len(outputs) < 2:
        return 0 if outputs else None
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else [output]
    returned = [number for number, call in enumerate(outputs) if any(call is part for part in parts)]
    return returned[-1] if returned else None


def run_eagerly() -> AbstractContextManager[Any]:
    """Compiled modules run as they were written inside the block, so that hooks see every layer.

    Raises:
        RuntimeError: torch before 2.6, which knows no such thing.
    """
    if not hasattr(torch.compiler, "set_stance"):
        raise RuntimeError(
            f"model: expected torch 2.6 or newer to look into a compiled module, got torch {torch.__version__}; pass "
            "the module as it was before torch.compile"
        )
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def evaluating(model: nn.Module) -> nn.Module:
    """The model, put into evaluation mode.

    Raises:
        TypeError: it cannot be.
    """
    try:
        return model.eval()
    except NotImplementedError as error:
        raise TypeError(
            f"model: {type(model).__name__} cannot be put into evaluation mode: {error} An exported program stays in "
            "the mode that it was exported in; measure the module that it was exported from"
        ) from error


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; every submodule's own mode (frozen layers too) is put back afterwards."""
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]  # frozen: none
    evaluating(model)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def as_map(output: Any, size: tuple[int, int]) -> Tensor:
    """A layer's output as a map (B, C, h, w): convolutional maps, channels-last maps (Swin) and tokens (ViT).

    What is which is read from the shapes: a map keeps the image's aspect ratio. Tokens (B, N, C) are h * w patches
    after up to 16 class or register tokens, which are left out.

    Args:
        output: what the layer returned.
        size: (H, W) of the image that went through the model.

    Raises:
        ValueError: the output is no map; the message says what it is.
    """
    if isinstance(output, Tensor) and output.ndim == 4:
        if _keeps_aspect(output.shape[2], output.shape[3], size):
            return output
        if _keeps_aspect(output.shape[1], output.shape[2], size):
            return output.permute(0, 3, 1, 2)
        if _keeps_aspect(output.shape[2], output.shape[3], size, slack=0.3):
            return output  # convolutions without padding shorten the short side more
    if isinstance(output, Tensor) and output.ndim == 3:
        for extra in range(17):
            patches = output.shape[1] - extra
            height = round((max(patches, 0) * size[0] / size[1]) ** 0.5)
            if height and patches % height == 0 and _keeps_aspect(height, patches // height, size):
                tokens = output[:, extra:].transpose(1, 2)
                return tokens.reshape(*tokens.shape[:2], height, patches // height)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ValueError(f"layer output: expected a map (B, C, h, w) or tokens (B, N, C) of a {size} image, got {shape}")


def _keeps_aspect(height: int, width: int, size: tuple[int, int], *, slack: float = 0.0) -> bool:
    # rounding in strided layers moves a side by less than one pixel
    return abs(height * size[1] / size[0] - width) < max(1, slack * width) and height <= size[0] and width <= size[1]


def uncompiled_name(name: str) -> str:
    """A layer's name without the wrappers of ``torch.compile``."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _entry(output: Any, key: int | str) -> Any:
    if isinstance(output, Mapping) or isinstance(key, int):
        try:
            return output[key]
        except (KeyError, IndexError, TypeError):
            return None
    return getattr(output, key, None)
