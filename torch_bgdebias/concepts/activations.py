"""Activation maps (B, C, h, w) of any model, by layer name or at an early, a middle and a late layer.

Layers are read with hooks (`torch_bgdebias.models.tap`) and, where the layers were chosen here and the model is
timm's and run as it is, with ``forward_intermediates``, which ends after the last layer that is wanted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import check_image, values_readable
from torch_bgdebias.models import as_map, check_one_device, eval_mode, get_layer, original_module, tap

__all__ = ["ActivationReader", "choose_layers"]

#: how images (B, C, H, W) go through the model; what it returns is not looked at
Forward: TypeAlias = Callable[[nn.Module, Tensor], object]


class ActivationReader:
    """Reads maps of some layers of a borrowed model, in evaluation mode; the model's modes are restored.

    Args:
        model: any module. Of torchvision's detectors the ``backbone`` is run, on the images as they are: their own
            resizing and padding would move the maps against the masks.
        layers: names as in ``named_modules``. ``"name[key]"`` takes one entry of a layer that returns a tuple or a
            mapping (``"backbone.fpn[0]"``); without a key its first map. ``None``: an early, a middle and a late layer,
            chosen from the first images by `choose_layers`.
        forward: how to run the model on images; ``None``: ``model(images)``.

    Maps are what the layer returned: (B, C, h, w) as it is, channels last (Swin) turned, tokens (ViT, DETR) without
    their class and register tokens, attention windows (timm's Swin) put together and rolled back.

    Raises:
        LookupError: an unknown layer; the message lists near names.
        TypeError: layers that ``nn.DataParallel`` copies to several devices.
        ValueError: no layers, or on reading: a layer whose output is no map, or holds values that are not finite.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())
        >>> {name: tuple(a.shape) for name, a in ActivationReader(net, ["1"])(torch.rand(2, 3, 8, 8)).items()}
        {'1': (2, 4, 4, 4)}
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] | None = None, *, forward: Forward | None = None):
        if isinstance(layers, str):
            raise TypeError(f"layers: expected a list of names, got the string {layers!r}")
        if layers is not None and not len(layers):
            raise ValueError("layers: expected at least one name, got none; None chooses an early, middle and late one")
        check_one_device(model, what="reading activations")
        for name in layers or ():
            get_layer(model, _split(name)[0])
        self.model = model
        self.forward, self._own_forward = forward or _default_forward(model), forward is not None
        self.layers: tuple[str, ...] | None = None if layers is None else tuple(dict.fromkeys(layers))
        self._timm: dict[str, int] | None = None

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The maps by layer, detached, for images (B, C, H, W) in the model's own units and on its device."""
        check_image(images, name="images")
        with eval_mode(self.model), torch.no_grad():
            if self.layers is None:
                self.layers = choose_layers(self.model, images[:1], forward=self.forward)
                places = {} if self._own_forward else _timm_places(self.model, self.layers)
                self._timm = places if len(places) == len(self.layers) else None
            maps = self._from_timm(images) if self._timm else self._from_hooks(images)
        for name, layer_map in maps.items():
            if values_readable(layer_map) and not bool(torch.isfinite(layer_map).all()):
                raise ValueError(f"layer {name!r}: expected finite activations, got NaN or infinity")
        return maps

    def _from_timm(self, images: Tensor) -> dict[str, Tensor]:
        assert self._timm is not None
        model: Any = original_module(self.model)
        outputs = model.forward_intermediates(
            images, indices=sorted(self._timm.values()), intermediates_only=True, stop_early=True, output_fmt="NCHW"
        )
        return dict(zip(sorted(self._timm, key=self._timm.__getitem__), (x.detach() for x in outputs), strict=True))

    def _from_hooks(self, images: Tensor) -> dict[str, Tensor]:
        layers = self.layers or ()
        names = {name: _split(name) for name in layers}
        with tap(self.model, list(dict.fromkeys(plain for plain, _ in names.values())), apart=True) as layer_tap:
            self.forward(self.model, images)
        maps = {}
        for name, (plain, key) in names.items():
            if not layer_tap.outputs[plain]:
                raise ValueError(f"layer {name!r}: the model ran without calling it; pass forward= or another layer")
            if (calls := len(layer_tap.outputs[plain])) > 1:
                raise ValueError(
                    f"layer {name!r}: expected one call in a forward pass, got {calls}, and which of its maps is meant "
                    "cannot be told; name a layer that runs once, such as the block around it"
                )
            maps[name] = _map_of(self.model, plain, layer_tap.outputs[plain][0], key, images)
        return maps


def choose_layers(model: nn.Module, image: Tensor, *, forward: Forward | None = None) -> tuple[str, ...]:
    """An early, a middle and a late layer: at a quarter, at half and at the end of the model's depth.

    timm models say where their stages end (``feature_info``). Elsewhere one image is sent through and the shallowest
    row of at least three sibling blocks with maps is taken as the depth (``layer1`` to ``layer4`` of a ResNet, the
    encoder layers of a ViT, ``features`` of a VGG).

    Args:
        model: any module; it runs once, in evaluation mode, unless it is timm's.
        image: (1, C, H, W) as the model takes it.
        forward: as for `ActivationReader`.

    Returns:
        At most three names, in order of depth; fewer if the model has fewer.

    Raises:
        ValueError: no layer returns a map; name the layers then.
    """
    index_of = _timm_places(model)
    if len(index_of) >= 3:
        return _three_depths(list(index_of))
    shapes = _shapes(model, image, forward or _default_forward(model))
    maps = [(name, leaf) for name, shape, leaf in shapes if shape is not None and min(shape[2:]) > 1]
    if not maps:
        raise ValueError(
            f"layers: none of {type(model).__name__} returns a map of more than one pixel; name the layers"
        )
    rows: dict[tuple[bool, str], list[str]] = {}
    for name, leaf in maps:
        rows.setdefault((leaf, name.rpartition(".")[0]), []).append(name)
    long = [key for key, members in rows.items() if len(members) >= 3]
    if not long:
        return _three_depths([name for name, _ in maps])
    # blocks before single layers, then the row that is least deep, then the one that runs first
    best = min(long, key=lambda key: (key[0], key[1].count(".") + bool(key[1])))
    return _three_depths(rows[best])


def _three_depths(names: Sequence[str]) -> tuple[str, ...]:
    last = len(names) - 1
    return tuple(dict.fromkeys(names[math.floor(share * last + 0.5)] for share in (0.25, 0.5, 1.0)))


def _timm_places(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, int]:
    """Layer name -> index of timm's ``forward_intermediates``; empty where that is not offered."""
    model = original_module(model)
    info: Any = getattr(model, "feature_info", None)
    if info is None or not callable(getattr(model, "forward_intermediates", None)):
        return {}
    rows = info if isinstance(info, list) else getattr(info, "info", [])
    index_of = {row["module"]: i for i, row in enumerate(rows) if row.get("module")}
    return index_of if names is None else {name: index_of[name] for name in names if name in index_of}


def _shapes(model: nn.Module, image: Tensor, forward: Forward) -> Iterator[tuple[str, torch.Size | None, bool]]:
    """(name, shape of the map or None, is a leaf) of every layer that runs once, in the order in which they end."""
    finished: list[tuple[str, torch.Size | None, bool]] = []
    names = [name for name, _ in model.named_modules() if name]
    handles = []

    def record(name: str, leaf: bool) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            try:
                shape = _first_map(output, None, image).shape
            except ValueError:
                shape = None
            finished.append((name, shape, leaf))

        return hook

    try:
        for name in names:
            layer = get_layer(model, name)
            handles.append(layer.register_forward_hook(record(name, not any(layer.children()))))
        with eval_mode(model), torch.no_grad():
            forward(model, image)
    finally:
        for handle in handles:
            handle.remove()
    calls = Counter(name for name, _, _ in finished)
    yield from (
        entry for entry in finished if calls[entry[0]] == 1
    )  # it is unknown which map of a shared layer is meant


def _map_of(model: nn.Module, name: str, output: Any, key: str | None, images: Tensor) -> Tensor:
    windows = _window_grid(model, name)
    tensor = output[0] if isinstance(output, tuple | list) and windows and len(output) else output
    if windows and isinstance(tensor, Tensor) and tensor.ndim == 3 and tensor.shape[0] != len(images):
        return _join_windows(tensor, *windows, images=len(images))
    try:
        return _first_map(output, key, images).detach()
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from error


def _first_map(output: Any, key: str | None, images: Tensor) -> Tensor:
    size = (images.shape[2], images.shape[3])
    if key is not None:
        entry: Any = int(key) if isinstance(output, tuple | list) else key
        try:
            output = output[entry]
        except (KeyError, IndexError, TypeError, ValueError):
            contents = list(output) if isinstance(output, Mapping) else f"a {type(output).__name__}"
            raise ValueError(f"output: no entry {key!r}, it is {contents}") from None
    if isinstance(output, Tensor):
        if output.ndim > 2 and output.shape[0] != len(images):
            raise ValueError(f"output: expected a map for each of {len(images)} images, got {tuple(output.shape)}")
        return as_map(output, size)
    entries = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    for nested in entries:
        try:
            return _first_map(nested, None, images)
        except ValueError:
            continue
    return as_map(output, size)  # raises and says what the output is


def _window_grid(model: nn.Module, name: str) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """(resolution, window, shift) of the nearest block around an attention in windows (timm's Swin)."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        block: Any = get_layer(model, ".".join(parts[:end]))
        if all(hasattr(block, a) for a in ("input_resolution", "window_size", "shift_size")):
            grids = [_pair(getattr(block, a)) for a in ("input_resolution", "window_size", "shift_size")]
            return grids[0], grids[1], grids[2]
    return None


def _join_windows(
    tokens: Tensor, resolution: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], *, images: int
) -> Tensor:
    """(B * windows, wh * ww, C) -> (B, C, h, w): windows side by side, the cyclic shift undone, the padding cut off."""
    rows, columns = (math.ceil(r / w) for r, w in zip(resolution, window, strict=True))
    if tokens.shape[0] != images * rows * columns or tokens.shape[1] != window[0] * window[1]:
        raise ValueError(
            f"layer output: expected {rows} x {columns} windows of {window} an image, got {tuple(tokens.shape)}"
        )
    grid = tokens.reshape(images, rows, columns, *window, -1).permute(0, 5, 1, 3, 2, 4)
    joined = grid.reshape(images, -1, rows * window[0], columns * window[1])
    return torch.roll(joined, shift, dims=(2, 3))[:, :, : resolution[0], : resolution[1]].detach()


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1])) if isinstance(value, Sequence) else (int(value), int(value))


def _split(name: str) -> tuple[str, str | None]:
    if name.endswith("]") and "[" in name:
        plain, _, key = name[:-1].rpartition("[")
        return plain, key
    return name, None


def _default_forward(model: nn.Module) -> Forward:
    inner = original_module(model)
    backbone: Any = getattr(inner, "backbone", None)
    # torchvision's detectors: their transform resizes and pads, their heads want lists of images
    if (
        isinstance(backbone, nn.Module)
        and type(getattr(inner, "transform", None)).__name__ == "GeneralizedRCNNTransform"
    ):
        return lambda _, images: backbone(images)
    return lambda model, images: model(images)
