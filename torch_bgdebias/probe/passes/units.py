"""Checks whether images are in the units that the network was trained on, from the images and the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from torch_bgdebias.models import original_module
from torch_bgdebias.preprocessing import Preprocessing

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
#: what a preprocessing leaves of the images' range where it divides by 255 once more
_HARDLY = 0.05


def doubt_about_units(
    model: nn.Module,
    run: Callable[[Tensor], object],
    image: Tensor,
    prepared: Tensor,
    *,
    normalised: tuple[Sequence[float], Sequence[float]] | None,
    preprocess: object = None,
) -> str:
    """What speaks against the images' units, as a warning that says what to do; empty where nothing does.

    Args:
        model: in evaluation mode.
        run: calls it on prepared images, as the measurement does.
        image: (B, C, H, W) or (B, C, D, H, W) as the loader yields them.
        prepared: the same as the model gets them.
        normalised: mean and standard deviation that ``image`` is said to have been normalised with.
        preprocess: what made ``prepared`` of ``image``.
    """
    low, high = _range(image)
    if normalised is not None and (doubt := _not_so_normalised(image, *normalised)):
        return doubt
    if doubt := _prepared_twice(image, prepared, preprocess):
        return doubt
    trained = _trained_batch_norms(model)
    if not trained:
        normalised_inside = any(isinstance(layer, _NORMS) for layer in model.modules())
        stated = normalised or ((preprocess.mean, preprocess.std) if isinstance(preprocess, Preprocessing) else None)
        return "" if normalised_inside else _not_as_published(model, prepared, stated)
    first_norm = _first_to_run(trained, lambda: run(prepared[:_IMAGES]))
    if first_norm is None:
        return ""
    name, spread, shift = first_norm
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


def _prepared_twice(image: Tensor, prepared: Tensor, preprocess: object) -> str:
    """Signs that a preprocessing got other pixels than those in [0, 1] that it is for; empty where there are none."""
    if preprocess is None:
        return ""
    low, high = _range(image)
    dark, bright = _range(prepared)
    if isinstance(preprocess, Preprocessing) and preprocess.mean is not None:
        if low < -OUTSIDE or high > 1 + OUTSIDE:
            return (
                f"preprocess: it is for pixels in [0, 1], and the loader's reach from {low:.2g} to {high:.2g}: they "
                "were normalised already, or are those of 0 to 255; leave preprocess= out and say mean= and std=, or "
                "have the loader yield pixels in [0, 1]"
            )
        return ""
    channels = prepared.detach().float().transpose(0, 1).flatten(1)  # channels, whose means set them apart
    if high - low > 2 * _HARDLY and float((channels.amax(1) - channels.amin(1)).max()) < _HARDLY * (high - low):
        return (
            f"preprocess: of pixels from {low:.2g} to {high:.2g} it makes {dark:.3g} to {bright:.3g}, hardly a "
            "picture: does it divide by 255, which was done already? (do_rescale=False of an image processor)"
        )
    return ""


def _not_as_published(
    model: nn.Module, prepared: Tensor, stated: tuple[Sequence[float] | None, Sequence[float] | None] | None
) -> str:
    """A warning by timm's data about a network that shows nothing itself, beside other pixels or normalisation."""
    config = getattr(original_module(model), "pretrained_cfg", None)  # timm's own attribute, on its models alone
    if not isinstance(config, Mapping):
        return ""
    mean, std = config.get("mean"), config.get("std")
    low, high = _range(prepared)
    if not mean or not std or not any(mean):
        return ""
    architecture = config.get("architecture") or type(model).__name__
    if low < 0 or high > 1:
        shift, scale = stated or (None, None)
        if shift is None or scale is None or (_same_constants(shift, mean) and _same_constants(scale, std)):
            return ""
        return (
            f"images: they are normalised with mean {tuple(shift)} and std {tuple(scale)}, and timm's data config of "
            f"{architecture} says {tuple(mean)} and {tuple(std)}; unless it was trained so, use timm's (bgdebias probe "
            "takes it by itself)"
        )
    return (
        f"images: the network gets pixels from {low:.2g} to {high:.2g}, and timm's data config of "
        f"{architecture} normalises them with mean {tuple(mean)} and std "
        f"{tuple(std)}; unless it was trained without that, pass preprocess=Preprocessing(mean=..., std=...) "
        "(bgdebias probe: --mean and --std)"
    )


def _not_so_normalised(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> str:
    """Signs that images were not normalised with this mean and std; empty where there are none."""
    low, high = _range(image)
    if any(x != 0 for x in mean) and low >= 0 and high <= 1:
        return (
            f"mean, std: the images' pixels lie in [{low:.2g}, {high:.2g}], so they were not normalised with them; "
            "normalise them in the loader, or pass preprocess=Preprocessing(mean=..., std=...) in place of mean and std"
        )
    shape = (-1, *[1] * (image.ndim - 2))
    shift, scale = (torch.as_tensor(x, dtype=torch.float32, device=image.device).reshape(shape) for x in (mean, std))
    dark, bright = _range(image.detach().float() * scale + shift)
    beyond = dark < -OUTSIDE or bright > 1 + OUTSIDE
    # what 0.5 and 0.5 make of pictures reaches both ends of [-1, 1] and no further
    halves = -1.001 <= low < -0.95 and 0.95 < high <= 1.001 and (dark > 0.1 or bright < 0.9)
    if not beyond and not halves:
        return ""
    actual = "0.5 and 0.5, as their range of -1 to 1 shows" if halves else "others"
    return (
        f"mean, std: undone, they give pixels from {dark:.2g} to {bright:.2g} where pictures have 0 to 1, so the "
        f"images were normalised with {actual}; pass those of the loader"
    )


def _range(image: Tensor) -> tuple[float, float]:
    """The smallest and the largest value. Waits for the device."""
    low, high = image.detach().float().aminmax()
    return float(low), float(high)


def _same_constants(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two means, or deviations, agree to two digits; ImageNet's are written with three or more."""
    pairs = zip(first, second, strict=True) if len(first) == len(second) else ((x, y) for x in first for y in second)
    return all(abs(x - y) < 0.01 for x, y in pairs)


def _trained_batch_norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The batch norms that have seen training, by name."""
    trained: list[tuple[str, nn.Module]] = []
    for name, layer in model.named_modules():
        has_statistics = isinstance(layer, _NORMS) and layer.running_mean is not None and layer.running_var is not None
        if has_statistics and _initial_share(layer) <= _BEGINNING:
            trained.append((name, layer))
    return trained


def _initial_share(layer: nn.Module) -> float:
    """How much of a batch norm's running mean and variance is still the 0 and 1 that it began with, from 0 to 1."""
    assert isinstance(layer, _NORMS)
    steps = 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)
    return 1.0 / max(1, steps) if layer.momentum is None else (1 - layer.momentum) ** steps


def _first_to_run(
    layers: Sequence[tuple[str, nn.Module]], run: Callable[[], object]
) -> tuple[str, float, float] | None:
    """Name of the layer that gets the first map, how many times wider its input is, and how far its mean is off.

    Which is the first is seen by running, since branches for training alone are often registered before the others.
    """
    readings: list[tuple[str, float, float]] = []

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not readings and inputs and inputs[0].ndim in (4, 5):
                readings.append((name, *_deviation_from_training(layer, inputs[0])))

        return hook

    with ExitStack() as stack:
        for name, layer in layers:
            stack.callback(layer.register_forward_pre_hook(look(name)).remove)
        with torch.no_grad():
            run()
    return readings[0] if readings else None


def _deviation_from_training(layer: nn.Module, features: Tensor) -> tuple[float, float]:
    """Width of features as a multiple of that in training, and their mean's distance in its standard deviations.

    Medians over the channels. What the layer began with is taken out of its statistics, since a variance of 1 outweighs
    that of small features for long; where it came with statistics of its own, of which nothing is to be taken out, the
    reading without that is the nearer one.
    """
    assert isinstance(layer, _NORMS)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    variance, mean = torch.var_mean(features.float(), (0, *range(2, features.ndim)))
    readings = []
    for share in (0.0, _initial_share(layer)):
        seen_mean = layer.running_mean.float() / (1 - share)
        seen_variance = ((layer.running_var.float() - share) / (1 - share)).clamp(min=0)
        scale = (seen_variance + layer.eps).sqrt().clamp(min=1e-30)
        spread = float(((variance + layer.eps).sqrt() / scale).median())
        readings.append((spread, float(((mean - seen_mean).abs() / scale).median())))

    def distance(reading: tuple[float, float]) -> float:
        spread, shift = reading
        return max(abs(math.log(max(spread, 1e-30))) / math.log(FAR_SPREAD), shift / FAR_MEAN)

    return min(readings, key=distance)
