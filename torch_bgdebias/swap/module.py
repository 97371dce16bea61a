"""``BackgroundSwap``: the swap as a kornia mix augmentation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from kornia.augmentation import MixAugmentationBaseV2
from kornia.constants import DataKey
from torch import Tensor

from torch_bgdebias.backgrounds.bank import BackgroundBank
from torch_bgdebias.backgrounds.pool import Pool
from torch_bgdebias.checks import check_image, check_mask, check_option, values_readable
from torch_bgdebias.compositing import FILLS
from torch_bgdebias.swap.functional import batch_backgrounds, placed, swap_onto
from torch_bgdebias.swap.placement import Placement
from torch_bgdebias.swap.sampling import SwapParams, SwapSettings, draw_swap

__all__ = ["BackgroundSwap"]

#: batches below this are small
_FEW = 16
_BESIDE = (
    "call it beside the container, image, mask, label = swap(*augmentations(image, mask, label)): "
    "AugmentationSequential hands its children one input at a time"
)


class BackgroundSwap(MixAugmentationBaseV2):  # type: ignore[misc]
    """Give every image of a batch a background that says nothing about its class.

    ``swap(image, mask, label)`` returns ``[new_image, mask, label]``: ``data_keys`` says what the positional inputs
    are, and as many come back, all but the image (and the mask of an object that was moved) as they came. What was
    drawn is in ``swap.drawn``; ``swap(image, mask, params=swap.drawn)`` repeats it. It goes beside kornia's
    `AugmentationSequential`, not into it. Backgrounds are constants: no gradient flows to them.

    Args:
        source: "batch", the background of any image of the batch with its foreground removed, or a bank.
        pattern: "paste", one background, or "voronoi", ``cells`` regions with a background and a random offset each
            (On Background Bias of Post-Hoc Concept Embeddings, arXiv 2504.08602).
        cells: regions for "voronoi".
        p: probability of a swap, drawn for each image.
        different_class: by default (``None``) backgrounds are drawn independently of the class, unless a call asks for
            another one (CLAD does). ``True``: a background's label always differs from the image's, which turns a bias
            into its opposite when trained on alone. ``False``: independent, whatever a call asks for.
        fill: how a foreground is removed for ``source="batch"``: "tile" (Only-BG-T of arXiv 2006.09994) or "mean".
        edge: standard deviation in pixels with which a foreground fades into its background, inwards, so that nothing
            of the old background comes along; 0: as the mask says. Choose it well below the finest part's width.
        placement: how far objects may be moved, rescaled and mirrored on their new background, such as
            ``Placement(move=0.5, scale=(0.7, 1.3), mirror=0.5)``; the mask comes back moved as well.
        data_keys: what the positional inputs are; fewer inputs than keys are the first of them.

    Raises:
        TypeError: ``placement`` is no Placement.
        ValueError: an unknown source, pattern, fill or key, fewer than one cell, ``p`` outside [0, 1], a negative
            ``edge``.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> image, mask, label = torch.rand(4, 3, 8, 8), torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 2])
        >>> swap = BackgroundSwap(pattern="paste")
        >>> swapped, mask, label = swap(image, mask, label)
        >>> swap.drawn["background_label"].shape
        torch.Size([4])
        >>> torch.equal(swap(image, mask, label, params=swap.drawn)[0], swapped)
        True
    """

    def __init__(
        self,
        source: str | BackgroundBank = "batch",
        pattern: str = "paste",
        cells: int = 8,
        p: float = 1.0,
        different_class: bool | None = None,
        fill: str = "tile",
        *,
        edge: float = 0.0,
        placement: Placement | None = None,
        data_keys: Sequence[str | int | DataKey] = ("input", "mask", "class"),
    ) -> None:
        if not isinstance(source, BackgroundBank) and source != "batch":
            hint = ""
            if isinstance(source, str | Path):
                hint = f"; BackgroundBank.from_folder({str(source)!r}, size) makes one of a folder of pictures"
            raise ValueError(f"source: expected 'batch' or a BackgroundBank, got {source!r}{hint}")
        check_option(fill, tuple(FILLS), name="fill")
        check_option(different_class, (None, True, False), name="different_class")
        SwapSettings(pattern, cells, p, placement=placement)
        if isinstance(edge, bool) or not isinstance(edge, int | float) or not 0 <= edge < math.inf:
            raise ValueError(f"edge: expected a finite number of pixels of at least 0, got {edge!r}")
        super().__init__(p=p, p_batch=1.0, data_keys=list(data_keys))
        if DataKey.INPUT not in self.data_keys:
            raise ValueError(f"data_keys: expected 'input' among them, got {list(data_keys)}")
        self.bank = source if isinstance(source, BackgroundBank) else None
        self.pattern, self.cells, self.fill, self.edge = pattern, cells, fill, float(edge)
        self.different_class, self.placement = different_class, placement
        self.flags = {
            "pattern": pattern,
            "cells": cells,
            "different_class": different_class,
            "fill": fill,
            "edge": edge,
            "placement": placement,
        }
        self._units = _WarnOnce(
            "BackgroundSwap: the bank's uint8 backgrounds have no mean and std, so they stand for [0, 1], but the "
            "images are normalised; pass the images' mean= and std= to the bank"
        )
        self._few = _WarnOnce(
            f"BackgroundSwap: with batches of fewer than {_FEW} images, each draws its background from the batch, its "
            "own included, so that one of B keeps it, and 1/B of the bias stays; larger batches or a BackgroundBank "
            "leave less"
        )
        self._unswapped = _WarnOnce(
            "BackgroundSwap: some images keep their background: none of another class, or a batch of one"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> BackgroundSwap:
        device = self.device
        super()._apply(fn, *args, **kwargs)
        if self.bank is not None and self.device != device:  # kornia's base class has just found out where ``fn`` moves
            self.bank.to(self.device)
        return self

    def generate_parameters(
        self,
        batch_shape: Sequence[int],
        label: Tensor | None = None,
        *,
        p: float | None = None,
        different_class: bool | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> SwapParams:
        """Draw parameters for images of ``batch_shape`` (B, C, H, W); see `sample_swap_params`.

        Args:
            batch_shape: (B, C, H, W) or (B, C, D, H, W).
            label: (B,), needed for ``different_class=True`` unless a bank has no labels.
            p: instead of the module's probability.
            different_class: what to do where the module leaves it open (``None``).
            device: of the parameters; that of the labels or the bank by default.
            generator: on that device.
        """
        requested = different_class if self.different_class is None else self.different_class
        settings = SwapSettings(self.pattern, self.cells, self.p if p is None else p, bool(requested), self.placement)
        params = draw_swap(batch_shape, label, self.bank, settings, device=device, generator=generator)
        if batch_shape[0] >= _FEW:
            self._few.done = True  # a smaller one is an epoch's last
        elif self.bank is None and not requested and batch_shape[0] > 1:
            self._few.say()
        self._unswapped.look((params["batch_prob"] > 0.5) & ~params["apply"])
        return params

    @property
    def drawn(self) -> SwapParams:
        """What the last call drew or was given, see `sample_swap_params`; pass it as ``params`` to repeat the call.

        Raises:
            RuntimeError: nothing was swapped yet.
        """
        if not self._params:
            raise RuntimeError("drawn: expected a swap that was called, got one that was not; call swap(image, mask)")
        return self._params

    def forward_parameters(self, batch_shape: Sequence[int], label: Tensor | None = None) -> SwapParams:
        """As `generate_parameters`, for kornia's containers, which pass no labels.

        Raises:
            ValueError: the draw needs labels.
        """
        try:
            return self.generate_parameters(batch_shape, label)
        except ValueError as error:
            raise ValueError(f"{error}; inside of a kornia container there are no labels: {_BESIDE}") from None

    def forward(
        self,
        *input: Tensor,
        mask: Tensor | None = None,
        label: Tensor | None = None,
        params: SwapParams | None = None,
        data_keys: Sequence[str | int | DataKey] | None = None,
        different_class: bool | None = None,
        generator: torch.Generator | None = None,
        void: Tensor | None = None,
    ) -> Tensor | list[Tensor]:
        """Swap, and return as many outputs as there are positional inputs (a tensor for one, a list for more).

        Args:
            *input: as ``data_keys`` says, by default image (B, C, H, W), mask (B, 1, H, W) or (B, H, W), label (B,);
                volumes (B, C, D, H, W) with masks (B, 1, D, H, W) as well.
            mask: the masks, when they are not among the positional inputs.
            label: the labels, when they are not among the positional inputs.
            params: what an earlier call drew (``swap.drawn``) or `generate_parameters`; drawn anew by default.
            data_keys: instead of the module's, for this call.
            different_class: what to do where the module leaves it open (``None``).
            generator: on the image's device; torch's global one by default.
            void: (B, 1, H, W) or (B, H, W) of pixels that are neither object nor background: replaced with the
                background, and painted over where the image lends its own.

        Raises:
            TypeError: a tensor of another dtype.
            ValueError: no mask, no labels where they are needed, shapes that do not agree, a bank on another device or
                with other channels, mask outside [0, 1], NaN.
        """
        keys = self._keys(input, data_keys)
        image = check_image(input[keys.index(DataKey.INPUT)], volumes=True)
        mask = self._one_of(mask, "mask", DataKey.MASK, keys, input)
        label = self._one_of(label, "label", DataKey.CLASS, keys, input)
        if mask is None:
            names = [key.name.lower() for key in keys]
            raise ValueError(f"mask: expected (B, 1, H, W), got none among {names}; {_BESIDE}")
        self._check_places(image, generator)
        if params is None:
            params = self.generate_parameters(
                image.shape, label, different_class=different_class, device=image.device, generator=generator
            )
        self._params = params
        given_mask = mask
        if void is not None:
            void = check_mask(void, image, name="void")
            mask = torch.minimum(check_mask(mask, image), 1 - void)
        if self.bank is None:
            pool = Pool(batch_backgrounds(image, mask, self.fill, void), name="bank", own=True)
        else:
            if image.device.type == "cuda" and self.bank.mean is None and self.bank.images.dtype == torch.uint8:
                self._units.look(image.detach()[:, :, ::16] < -0.5)  # on the CPU the pool sees it
            pool = Pool(self.bank.images, mean=self.bank.mean, std=self.bank.std, name="bank")
        object_image, object_mask = placed(image, mask, params)
        swapped = swap_onto(object_image, object_mask, pool, params, edge=self.edge)
        transformed = {DataKey.INPUT: swapped}
        if "placement" in params:
            transformed[DataKey.MASK] = _as_given(object_mask, given_mask)
        outputs = [transformed.get(key, value) for key, value in zip(keys, input, strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs

    def _keys(self, input: Sequence[Tensor], data_keys: Sequence[str | int | DataKey] | None) -> list[DataKey]:
        keys = self.data_keys if data_keys is None else [DataKey.get(key) for key in data_keys]
        if len(input) > len(keys) or DataKey.INPUT not in keys[: len(input)]:
            names = [key.name.lower() for key in keys]
            raise ValueError(f"data_keys: expected one for each of {len(input)} inputs, 'input' too, got {names}")
        return list(keys[: len(input)])

    @staticmethod
    def _one_of(
        value: Tensor | None, name: str, key: DataKey, keys: Sequence[DataKey], input: Sequence[Tensor]
    ) -> Tensor | None:
        if key not in keys:
            return value
        if value is not None:
            raise ValueError(f"{name}: expected once, got it as a positional input and by name")
        return input[keys.index(key)]

    def _check_places(self, image: Tensor, generator: torch.Generator | None) -> None:
        if generator is not None and generator.device.type != image.device.type:
            raise ValueError(f"generator: expected on the image's device {image.device}, got {generator.device}")
        if self.bank is not None:
            if self.bank.device != image.device:
                raise ValueError(
                    f"source: expected the bank on the image's device {image.device}, got {self.bank.device}; "
                    f"call bank.to({str(image.device)!r})"
                )
            if self.bank.images.shape[1] != image.shape[1]:
                image_channels, channels = image.shape[1], self.bank.images.shape[1]
                raise ValueError(
                    f"source: expected a bank of {image_channels} channels as the image has, got {channels}"
                )


def _as_given(mask: Tensor, like: Tensor) -> Tensor:
    """In the shape and dtype of the mask that the user passed; bool where the object covers half of a pixel."""
    return (mask >= 0.5 if like.dtype == torch.bool else mask.to(like.dtype)).reshape(like.shape)


class _WarnOnce:
    """Warns the first time that a flag is seen set. On a GPU it looks at what an earlier call left, and never waits."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.done = False
        self._pending: tuple[Tensor, torch.cuda.Event] | None = None

    def say(self) -> None:
        """Warn, unless that is done."""
        if not (self.done or torch.compiler.is_compiling()):
            self._warn_if(True)

    def look(self, flags: Tensor) -> None:
        """Note ``flags``, bool of any shape."""
        if self.done or torch.compiler.is_compiling():
            return
        if values_readable(flags):
            self._warn_if(bool(flags.any()))
        elif flags.device.type == "cuda" and not torch.cuda.is_current_stream_capturing():  # a graph cannot be asked
            if self._pending is not None:
                if not self._pending[1].query():  # type: ignore[no-untyped-call]
                    return
                self._warn_if(bool(self._pending[0]))
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._pending = (flags.any().to("cpu", non_blocking=True), copied)
            copied.record(torch.cuda.current_stream(flags.device))

    def _warn_if(self, seen: bool) -> None:
        if seen:
            self.done = True
            warnings.warn(self.message, stacklevel=2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": None}  # an event belongs to its process
