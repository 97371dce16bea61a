"""Finds the layer that makes relevance infinite, or through which it cannot be differentiated.

torch says only that something went wrong, and for a missing second derivative it says so in the training loss's
backward pass, far from here. So the graph of the relevance is searched for the nodes with which torch marks what it
cannot differentiate (a walk of a millisecond), and after a fault the forward pass runs once more with hooks on every
submodule. Nothing of this touches a pass without faults.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils import _pytree

from torch_bgdebias.lrp.graph import nodes_behind
from torch_bgdebias.models import uncompiled_name

__all__ = [
    "LayerError",
    "Rerun",
    "check_batch_norm",
    "check_reached",
    "check_trainable",
    "check_visible",
    "propagate",
    "refusal",
    "where_infinite",
]

#: the forward pass once more: the explained scalar, and the context in which backward passes are relevance passes.
#: Functions that take ``None`` in its place do without the layer's name.
Rerun = Callable[[], tuple[Tensor, AbstractContextManager[None]]]


#: first derivatives of torchvision's operators (deformable convolution, pooling of regions) as nodes, none of which has
#: a derivative of its own
_TORCHVISION = re.compile(r"torchvision__(\w+)_backward|vision::ops::.*?(\w+)BackwardFunction")


#: what a compiled function is as a node
_COMPILED = {"::DifferentiableGraphBackward": "torch.jit.script", "CompiledFunctionBackward": "torch.compile"}


class LayerError(RuntimeError):
    """The relevance pass itself failed; the layer is not known yet."""


@dataclasses.dataclass
class _Call:
    """One call of one submodule. Edges, not tensors: they stay what they were when a tensor is changed in place."""

    name: str
    kind: str
    inputs: list[GradientEdge]
    finite: bool
    outputs: list[GradientEdge] = dataclasses.field(default_factory=list)
    values: list[Tensor] = dataclasses.field(default_factory=list)
    out_finite: bool = True

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"


def propagate(
    scalar: Tensor, inputs: Sequence[Tensor | GradientEdge], *, create_graph: bool, retain_graph: bool
) -> tuple[Tensor | None, ...]:
    """``torch.autograd.grad`` of the relevance pass, whose failures are distinguished from other errors.

    Raises:
        LayerError: some operation of the model cannot be differentiated, or the graph is gone.
    """
    try:
        return torch.autograd.grad(
            scalar,
            cast("Sequence[Tensor]", inputs),
            create_graph=create_graph,
            retain_graph=retain_graph,
            allow_unused=True,
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LayerError(str(error)) from error


def check_batch_norm(module: nn.Module) -> None:
    """Refuse batch norm whose statistics are shared between processes: its derivative is torch's own, and only one.

    ``nn.SyncBatchNorm`` in evaluation mode, or in a process of its own, is plain batch norm and fine.

    Raises:
        RuntimeError: the message names the layer.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for name, layer in module.named_modules():
        if isinstance(layer, nn.SyncBatchNorm) and layer.training:
            processes = torch.distributed.get_world_size(layer.process_group)
            if processes > 1:
                raise RuntimeError(
                    f"layer {uncompiled_name(name)!r} (SyncBatchNorm) shares a batch's statistics between {processes} "
                    "processes, through which relevance cannot be propagated: use BatchNorm, or evaluation mode there"
                )


def check_visible(module: nn.Module) -> None:
    """Refuse layers whose operations do not pass through Python's torch functions: no rule would reach them.

    Raises:
        RuntimeError: a scripted, traced or exported layer; the message names it.
    """
    for name, layer in module.named_modules():
        kind = ""
        if isinstance(layer, torch.jit.ScriptModule):
            kind = "scripted"
        elif isinstance(layer, torch.fx.GraphModule):
            exported = any(isinstance(node.target, torch._ops.OpOverload) for node in layer.graph.nodes)
            kind = "exported" if exported else ""
        if kind:
            layer_words = f"layer {uncompiled_name(name)!r}" if name else "the model"
            raise RuntimeError(
                f"{layer_words} ({type(layer).__name__}) is {kind}, so that the rules of LRP cannot reach its "
                "operations: pass the Python module that it was made from"
            )


def check_reached(module: nn.Module, logits: Tensor, start: GradientEdge, rerun: Rerun | None) -> None:
    """Refuse functions that run as one compiled piece, inside which no rule would act: ``check_visible`` sees modules.

    A scripted function is compiled at its second call only, and cannot be told before.

    Raises:
        RuntimeError: a scripted or compiled function; the message names the layer that calls it.
    """
    kind = _compiled([logits.grad_fn], {start.node})
    if not kind:
        return
    guilty: list[_Call] = []
    if rerun is not None:
        with _state_unchanged(module), _recorded(module) as calls:
            rerun()
        guilty = [c for c in calls if _compiled([e.node for e in c.outputs], {e.node for e in c.inputs})]
    raise RuntimeError(
        f"{_innermost(guilty) or _own_forward_text(module)} calls a function under {kind}, so that the rules of LRP "
        "cannot reach its operations: use the Python function"
    )


def _compiled(nodes: Sequence[Any], ends: Set[Any] = frozenset()) -> str:
    """The origin of a compiled function between these nodes and the ends, "" if there is none."""
    for node in nodes_behind(nodes, ends):
        kind = next((kind for name, kind in _COMPILED.items() if node.name().endswith(name)), "")
        if kind:
            return kind
    return ""


def _no_second_derivative(relevance: Tensor) -> str | None:
    """The error with which torch refuses to differentiate ``relevance``; ``None`` where it does not refuse.

    Found are operations without a second derivative, functions that are marked ``once_differentiable`` and the first
    derivatives of torchvision's operators. cuDNN's recurrent layers find out only while they are differentiated.
    """
    for node in nodes_behind([relevance.grad_fn]):
        if type(node).__name__ in ("Error", "NotImplemented"):
            return _message_of_node(node)
        if (operation := _TORCHVISION.search(node.name())) is not None:
            return f"torchvision's {operation.group(1) or operation.group(2)} has no second derivative"
    return None


def _message_of_node(node: Any) -> str:
    """Such a node only raises its message, when it gets as many gradients as it has outputs."""
    try:
        node(*[torch.zeros(())] * max(1, len(node._input_metadata)))
    except RuntimeError as error:
        return str(error)
    return f"{node.name()} cannot be differentiated"


def check_trainable(module: nn.Module, relevance: Tensor, rerun: Rerun | None) -> None:
    """Refuse relevance that cannot be differentiated.

    Raises:
        RuntimeError: it contains an operation without a second derivative; the message names its layer.
    """
    reason = _no_second_derivative(relevance)
    if reason is not None:
        raise _error(_refusing_layer(module, rerun, twice=True) or _own_forward_text(module), reason, twice=True)


def refusal(module: nn.Module, error: LayerError, rerun: Rerun | None, *, create_graph: bool) -> RuntimeError:
    """What to raise when the relevance pass failed: the layer's name with torch's words, or torch's words alone."""
    layer = _refusing_layer(module, rerun, twice=create_graph)
    if "torch.utils.checkpoint" in str(error):
        return RuntimeError(
            f"{layer or _own_forward_text(module)} runs again in the backward pass (torch.utils.checkpoint), where it "
            "would not be explained: switch gradient checkpointing off (timm: model.set_grad_checkpointing(False); "
            "transformers: model.gradient_checkpointing_disable())"
        )
    return RuntimeError(str(error)) if layer is None else _error(layer, str(error), twice=create_graph)


def _error(layer: str, reason: str, *, twice: bool) -> RuntimeError:
    if not twice:
        return RuntimeError(f"{layer} cannot be differentiated: {reason}")
    return RuntimeError(
        f"{layer} cannot be differentiated twice, so its relevance cannot be trained through: {reason} "
        "(create_graph=False explains without training)"
    )


def _refusing_layer(module: nn.Module, rerun: Rerun | None, *, twice: bool) -> str | None:
    if rerun is None:
        return None
    with _state_unchanged(module), _recorded(module) as calls:
        _, relevance = rerun()
        with relevance:
            return _innermost([call for call in calls if _refuses(call, twice)])


def where_infinite(module: nn.Module, image: Tensor, rerun: Rerun | None) -> str:
    """Where values that are not finite come from: the image, a layer's output, or the relevance that leaves a layer."""
    if not bool(torch.isfinite(image).all()):
        return "the image is not finite"
    if rerun is None:
        return "in which layer is not known, since the parts of the model are called one by one"
    with _state_unchanged(module), _recorded(module) as calls:
        scalar, relevance = rerun()
        for call in calls:  # a layer ends before those that contain it
            if call.finite and not call.out_finite:
                return f"first in the output of {call}"
        with relevance:
            faulty = [call for call in _with_gradients(calls, scalar) if _loses_finiteness(call)]
    layer = _innermost(faulty)
    return "not in any of its layers" if layer is None else f"first in the relevance that leaves {layer}"


def _innermost(faulty: Sequence[_Call]) -> str | None:
    """The last of them to run, which the relevance pass meets first; of nested ones the innermost."""
    inner = [c for c in faulty if not any(o.name.startswith(f"{c.name}.") for o in faulty)]
    return str(inner[-1]) if inner else None


def _own_forward_text(module: nn.Module) -> str:
    return f"the forward of {type(module).__name__} itself"


def _refuses(call: _Call, twice: bool) -> bool:
    """Whether the gradient between a layer's two ends, or the gradient's own derivative, is refused."""
    if not call.inputs or not call.outputs:
        return False
    ones = [torch.ones_like(value).requires_grad_(twice) for value in call.values]
    try:
        gradients = torch.autograd.grad(
            call.outputs, call.inputs, ones, create_graph=twice, retain_graph=True, allow_unused=True
        )
    except RuntimeError:
        return True
    return any(g is not None and _no_second_derivative(g) is not None for g in gradients)


def _with_gradients(calls: Sequence[_Call], scalar: Tensor) -> list[_Call]:
    """The calls with the gradients at their outputs as ``values``."""
    edges = [edge for call in calls for edge in call.outputs]
    gradients = iter(torch.autograd.grad(scalar, edges, retain_graph=True, allow_unused=True) if edges else ())
    for call in calls:
        of_outputs = [next(gradients) for _ in call.outputs]
        call.values = [torch.zeros_like(v) if g is None else g for g, v in zip(of_outputs, call.values, strict=True)]
    return list(calls)


def _loses_finiteness(call: _Call) -> bool:
    """Whether finite gradients enter from above and others leave."""
    if not call.inputs or not call.outputs or not _finite(call.values):
        return False
    gradients = torch.autograd.grad(call.outputs, call.inputs, call.values, retain_graph=True, allow_unused=True)
    return not _finite([g for g in gradients if g is not None])


def _tensors(*trees: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(trees) if isinstance(leaf, Tensor)]


def _finite(tensors: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(t.detach()).all()) for t in tensors if t.is_floating_point())


@contextmanager
def _recorded(module: nn.Module) -> Iterator[list[_Call]]:
    """Record the calls of all submodules, in the order in which they end."""
    calls: list[_Call] = []
    running: list[_Call] = []
    handles = []

    def before(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs = _tensors(args, kwargs)
            edges = [get_gradient_edge(t) for t in inputs if t.requires_grad]
            running.append(_Call(name, type(layer).__name__, edges, _finite(inputs)))

        return hook

    def after(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = running.pop()
        leaving = _tensors(output)
        call.out_finite = _finite(leaving)
        live = [t for t in leaving if t.requires_grad]
        call.outputs = [get_gradient_edge(t) for t in live]
        call.values = [t.detach().clone() for t in live]
        calls.append(call)

    try:
        for name, layer in module.named_modules():
            if layer is not module:
                handles += [
                    layer.register_forward_pre_hook(before(uncompiled_name(name)), with_kwargs=True, prepend=True),
                    layer.register_forward_hook(after, with_kwargs=True),
                ]
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _state_unchanged(module: nn.Module) -> Iterator[None]:
    """A forward pass in the block leaves no trace: buffers and the random generators' states come back."""
    buffers = [(m, n, b, b.clone()) for m in module.modules() for n, b in m._buffers.items() if b is not None]
    devices = {b.device for b in (*module.parameters(), *module.buffers()) if b.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            with torch.no_grad():
                for owner, name, buffer, value in buffers:
                    buffer.copy_(value)
                    owner._buffers[name] = buffer
