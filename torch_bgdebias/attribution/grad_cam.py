"""Grad-CAM (Selvaraju et al., 2017, arXiv 1610.02391) of any layer whose output is a map or tokens."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias.attribution.targets import target_class
from torch_bgdebias.checks import check_finite, check_image, describe
from torch_bgdebias.models import LogitsKey, as_map, eval_mode, logits_of, original_module, tap
from torch_bgdebias.probabilities import are_probabilities

__all__ = ["find_map_layer", "grad_cam"]


def grad_cam(
    model: nn.Module,
    image: Tensor,
    target: Tensor | int | None = None,
    *,
    layer: str | None = None,
    logits: LogitsKey = None,
    positive: bool = True,
) -> Tensor:
    """Grad-CAM: a layer's maps, weighted by the mean gradient of the class's logit and summed.

    Args:
        model: any classifier; runs in evaluation mode, and gradients to its parameters are neither made nor kept.
        image: (B, C, H, W) as the model takes it.
        target: class of each sample (B,), one for all, or ``None`` for the predicted class.
        layer: name of the layer; ``None`` looks for the last map that the logits depend on (`find_map_layer`).
        logits: where the logits are in the model's output (`torch_bgdebias.models.logits_of`).
        positive: keep what speaks for the class (the paper's ReLU); ``False`` keeps the sign.

    Returns:
        Attributions (B, 1, H, W), resized bilinearly from the layer's size; zero where nothing speaks for the class.

    Raises:
        LookupError: no layer of that name. ValueError: an image is not finite, the layer's output is no map, the logits
            do not depend on it, or depend on several calls of it side by side (two views of an image).

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> grad_cam(model, torch.rand(2, 3, 8, 8), layer="0").shape
        torch.Size([2, 1, 8, 8])
    """
    check_finite(check_image(image), name="image")
    model = original_module(model)
    size = (image.shape[2], image.shape[3])
    with torch.inference_mode(False), eval_mode(model), torch.enable_grad():
        model_input = image.detach().clone().requires_grad_()  # a graph, also where every parameter is frozen
        if layer is None:
            layer = find_map_layer(model, model_input[:1], logits=logits)
        with tap(model, [layer], apart=True) as layer_tap:
            model_logits = logits_of(model(model_input), logits)
        if not layer_tap.outputs[layer]:
            raise ValueError(f"layer {layer!r} was not run by {type(model).__name__}; name another one")
        output = _last_call([_tensor_of(call) for call in layer_tap.outputs[layer]], model_logits, layer)
        maps = as_map(output, size).detach().float()
        if not output.requires_grad:
            raise ValueError(f"layer {layer!r}: it runs without gradients (torch.no_grad); name a layer after it")
        target_score = model_logits.float().gather(1, target_class(model_logits, target)[:, None]).sum()
        (gradient,) = torch.autograd.grad(target_score, output, allow_unused=True)
    if gradient is None:
        raise ValueError(f"layer {layer!r}: the logits do not depend on its output; name another layer")
    weight = as_map(gradient, size).float().mean((2, 3), keepdim=True)
    cam = (weight * maps).sum(1, keepdim=True)
    cam = cam.relu() if positive else cam
    return F.interpolate(cam, size=size, mode="bilinear", align_corners=False)


def find_map_layer(model: nn.Module, image: Tensor, *, logits: LogitsKey = None) -> str:
    """The last layer whose output is a map of more than one position on which the logits depend.

    The model is run once and asked: outputs are tried from the last to the first, and the first map with gradients at
    more than one position (class tokens aside) is taken. A convolutional network gives its last stage; a vision
    transformer that reads its class token gives the input of its last attention, since nothing else reaches the logits.

    Args:
        model: any classifier, run in evaluation mode.
        image: (B, C, H, W); one image is enough.
        logits: where the logits are in the model's output.

    Raises:
        LookupError: no such layer (a multilayer perceptron, or a head whose weights are all zero).
    """
    if len(check_image(image)) == 0:
        raise ValueError(f"image: expected at least one, got {describe(image)}")
    model, size = original_module(model), (image.shape[2], image.shape[3])
    names = [name for name, _ in model.named_modules() if name]
    order: list[tuple[str, Tensor]] = []
    with torch.inference_mode(False), eval_mode(model), torch.enable_grad(), ExitStack() as stack:
        for name in names:
            if isinstance(model.get_submodule(name), (nn.Identity, nn.Linear)):
                continue  # nothing new, or a projection inside of a block (queries, keys and values)
            hook = partial(_note, order, name)
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        model_logits = logits_of(model(image.detach().clone().requires_grad_()), logits).float()
        mixed = (model_logits * torch.linspace(1, 2, model_logits.shape[1], device=model_logits.device)).sum()
        candidates = [(name, output) for name, output in order if output.requires_grad and _is_map(output, size)]
        outputs = [output for _, output in candidates]
        gradients = _gradients(mixed, outputs, type(model).__name__)
    for (name, _), gradient in zip(reversed(candidates), reversed(gradients), strict=True):
        if gradient is not None and int((as_map(gradient, size) != 0).any(1).sum((1, 2)).min()) > 1:
            return name
    hint = "name one (layer=...)"
    if are_probabilities(model_logits.detach()):
        hint = "its output is a softmax, flat where the network is sure: take the logits before it (logits=...)"
    raise LookupError(f"no layer of {type(model).__name__} gives a map that its logits depend on; {hint}")


def _gradients(mixed: Tensor, outputs: list[Tensor], model: str) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(mixed, outputs, allow_unused=True) if outputs else ()
    except RuntimeError as error:
        raise LookupError(
            f"no layer of {model} can be chosen, since gradients to its layers cannot be taken ({error}); name one "
            "(layer=...)"
        ) from error


def _last_call(calls: list[Any], logits: Tensor, layer: str) -> Any:
    """The output of a layer's last call that the logits depend on, where all that earlier ones say goes through it.

    Raises:
        ValueError: the logits depend on earlier calls by themselves: no one map is the layer's answer to the image.
    """
    with_graph = [call for call in calls if isinstance(call, Tensor) and call.requires_grad]
    if len(calls) == 1 or not with_graph:
        return calls[-1]
    reaching = torch.autograd.grad(logits.sum(), with_graph, retain_graph=True, allow_unused=True)
    calls_used = [call for call, gradient in zip(with_graph, reaching, strict=True) if gradient is not None]
    if len(calls_used) < 2:
        return (calls_used or calls)[-1]
    *earlier, last = calls_used
    through = torch.autograd.grad(last.sum(), earlier, retain_graph=True, allow_unused=True)
    if any(gradient is None for gradient in through):
        raise ValueError(
            f"layer {layer!r}: expected one call of it that the logits depend on, got {len(calls)} side by side (two "
            "views of an image?), whose maps do not lie over one another; name a layer that runs once, or explain the "
            "network on one view"
        )
    return last


def _note(order: list[tuple[str, Tensor]], name: str, module: nn.Module, args: object, output: object) -> None:
    output_map = _tensor_of(output)
    if isinstance(output_map, Tensor):
        order.append((name, output_map))


def _tensor_of(output: Any) -> Any:
    # attention layers return (output, weights)
    return output[0] if isinstance(output, (tuple, list)) and output else output


def _is_map(output: Tensor, size: tuple[int, int]) -> bool:
    try:
        maps = as_map(output, size)
    except ValueError:
        return False
    return maps.shape[2] * maps.shape[3] > 1
