"""Are the images in the units that the network was trained on? What the images and the network themselves show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from torch_bgdebias.models import original_module, tap

__all__ = ["doubt_about_units"]

#: a first batch normalisation whose input is this many times wider or narrower than in training, or whose mean is this
#: many standard deviations off, sees other units; other pictures alone stay within about half of that
FAR_SPREAD, FAR_MEAN = 3.0, 2.0
_IMAGES = 16
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
#: pixels this far out of [0, 1] were not normalised as was said
OUTSIDE = 0.25
#: share of a running mean that may still be its beginning
_BEGINNING = 0.05


def doubt_about_units(
    model: nn.Module,
    run: Callable[[Tensor], object],
    image: Tensor,
    prepared: Tensor,
    *,
    normalised: tuple[Sequence[float], Sequence[float]] | None,
) -> str:
    """What speaks against the images' units, as a warning that says what to do; empty where nothing does.

    Args:
        model: in evaluation mode.
        run: calls it on prepared images, as the measurement does.
        image: (B, C, H, W) or (B, C, D, H, W) as the loader yields them.
        prepared: the same as the model gets them.
        normalised: mean and standard deviation that ``image`` is said to have been normalised with.
    """
    low, high = (float(x) for x in image.detach().float().aminmax())
    if normalised is not None and (doubt := _not_so_normalised(image, *normalised)):
        return doubt
    name = _first_batch_norm(model)
    if name is None:
        normalised_inside = any(isinstance(layer, _NORMS) for layer in model.modules())
        return "" if normalised_inside else _not_as_published(model, prepared)
    layer = model.get_submodule(name)
    assert isinstance(layer, _NORMS)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    with tap(model, [name]) as seen, torch.no_grad():
        run(prepared[:_IMAGES])
    inputs = seen.inputs[name]
    if not inputs or inputs[0].ndim not in (4, 5):
        return ""
    variance, mean = torch.var_mean(inputs[0].float(), (0, *range(2, inputs[0].ndim)))
    scale = (layer.running_var.float() + layer.eps).sqrt()
    spread = float(((variance + layer.eps).sqrt() / scale).median())
    shift = float(((mean - layer.running_mean.float()).abs() / scale).median())
    if 1 / FAR_SPREAD <= spread <= FAR_SPREAD and shift <= FAR_MEAN:
        return ""
    means = ", ".join(
        f"{value:.2f}" for value in prepared.detach().float().transpose(0, 1).flatten(1).mean(1).tolist()[:4]
    )
    return (
        f"images: the network's first batch normalisation ({name}) sees {spread:.2g} times the spread of its training, "
        f"its mean {shift:.2g} standard deviations off: the pixels (means {means}, from {low:.2g} to {high:.2g}) are "
        "probably in other units than it was trained on; pass preprocess=Preprocessing(mean=..., std=...) with those "
        "of its training (bgdebias probe: --mean and --std)"
    )


def _not_as_published(model: nn.Module, prepared: Tensor) -> str:
    """What timm says of a network that shows nothing itself, beside pixels that are as in files."""
    config = getattr(original_module(model), "pretrained_cfg", None)  # timm's own attribute, on its models alone
    if not isinstance(config, Mapping):
        return ""
    mean, std = config.get("mean"), config.get("std")
    low, high = (float(x) for x in prepared.detach().float().aminmax())
    if not mean or not std or not any(mean) or low < 0 or high > 1:
        return ""
    return (
        f"images: the network gets pixels from {low:.2g} to {high:.2g}, and timm's data config of "
        f"{config.get('architecture') or type(model).__name__} normalises them with mean {tuple(mean)} and std "
        f"{tuple(std)}; unless it was trained without that, pass preprocess=Preprocessing(mean=..., std=...) "
        "(bgdebias probe: --mean and --std)"
    )


def _not_so_normalised(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> str:
    """What shows that images were not normalised with this mean and std; empty where nothing does."""
    low, high = (float(x) for x in image.detach().float().aminmax())
    if any(x != 0 for x in mean) and low >= 0 and high <= 1:
        return (
            f"mean, std: the images' pixels lie in [{low:.2g}, {high:.2g}], so they were not normalised with them; "
            "normalise them in the loader, or pass preprocess=Preprocessing(mean=..., std=...) in place of mean and std"
        )
    shape = (-1, *[1] * (image.ndim - 2))
    shift, scale = (torch.as_tensor(x, dtype=torch.float32, device=image.device).reshape(shape) for x in (mean, std))
    dark, bright = (float(x) for x in (image.detach().float() * scale + shift).aminmax())
    beyond = dark < -OUTSIDE or bright > 1 + OUTSIDE
    # what 0.5 and 0.5 make of pictures reaches both ends of [-1, 1] and no further
    halves = -1.001 <= low < -0.95 and 0.95 < high <= 1.001 and (dark > 0.1 or bright < 0.9)
    if not beyond and not halves:
        return ""
    others = "0.5 and 0.5, as their range of -1 to 1 shows" if halves else "others"
    return (
        f"mean, std: undone, they give pixels from {dark:.2g} to {bright:.2g} where pictures have 0 to 1, so the "
        f"images were normalised with {others}; pass those of the loader"
    )


def _first_batch_norm(model: nn.Module) -> str | None:
    """The first one that has seen training, in the order of registration."""
    for name, layer in model.named_modules():
        if isinstance(layer, _NORMS) and layer.running_mean is not None and layer.running_var is not None:
            # a hardly trained one still carries the mean 0 and variance 1 that it began with
            steps = 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)
            momentum = layer.momentum
            left = 1.0 / max(1, steps) if momentum is None else (1 - momentum) ** steps
            return None if left > _BEGINNING else name
    return None
