"""Runs a second batch through a borrowed network, together with the user's forward pass or right after it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from torch_bgdebias.calls import around_calls
from torch_bgdebias.checks import describe
from torch_bgdebias.models import LayerTap, get_layer, original_module, tap
from torch_bgdebias.moved_pixels import Views, same_images, views_of

__all__ = ["Forward", "Pair", "PairedPass", "paired_pass"]

#: takes images, as they enter the network, through a module
Forward: TypeAlias = "Callable[[nn.Module, Tensor], Any]"


class Pair(NamedTuple):
    """What a paired pass gives.

    Args:
        anchor: (B, D) embedding of the user's images, from the user's own forward pass.
        positive: (B, D) embedding of the second batch.
        layer_output: what the layer made of the second batch: the logits, where the layer is the last linear one.
        output: what the network returned for the second batch.
    """

    anchor: Tensor
    positive: Tensor
    layer_output: Any
    output: Any


class PairedPass:
    """One training step's look at the network: which module took the images, with which arguments, what came out.

    The network is the outermost module around ``layer`` that is called with the images, or with several views of them
    in one batch, of which those are looked at that are the images themselves; where none is, one whose ``forward`` is.
    It is watched, never changed; with ``joint`` its input is extended and its output cut back for the one call.

    Attributes:
        network: it, once it was called.
        views: which rows of what it was given are the batch's own images.
        entered: where a step calls parts one after the other, the images as the first of them was given them.
    """

    def __init__(
        self,
        module: nn.Module,
        layer: str,
        image: Tensor,
        positives: Callable[[Tensor], Tensor],
        layer_tap: LayerTap,
        joint: bool,
        views: Views | None,
        forward: Forward | None,
    ) -> None:
        self.module, self.layer, self.image, self._forward = module, layer, image, forward
        self.second, self.seen, self.joint, self.views = positives, layer_tap, joint, views
        self.network: nn.Module | None = None
        self.entered: Tensor | None = None
        self._rows, self._size = slice(None), len(image)
        self._open = False
        self._forward_call: tuple[nn.Module, tuple[Any, ...], dict[str, Any]] | None = None
        self._forward_image: tuple[Tensor, int] | None = None
        self._repeat: Callable[[], Any] | None = None
        self._output: Any = None

    def finish(self) -> Pair:
        """Take the second batch through (unless that is done) and return both embeddings.

        Raises:
            LookupError: the images went another way, or the layer was not used.
        """
        self._take_forward_call()
        embeddings, batch, size = self.seen.inputs[self.layer], self.image.shape[0], self._size
        if not embeddings:
            raise LookupError(
                f"layer: {self.layer!r} took no part in training_step; name the layer whose input is the embedding"
            )
        if self.joint:
            if self.network is None:
                raise LookupError(f"joint: {_NO_ENTRY.format(layer=self.layer)}; pass joint=False")
            both = as_vectors(embeddings[0], size + batch, self.layer)
            layer_output = tree_map(lambda x: _tail(x, size, batch), self.seen.outputs[self.layer][0])
            return Pair(both[:size][self._rows], both[size:], layer_output, self._output)
        anchor, calls = as_vectors(embeddings[0], size, self.layer)[self._rows], len(embeddings)
        output = self._call_again()
        if len(embeddings) == calls:
            raise LookupError(
                f"layer: {self.layer!r} took no part when the images with other backgrounds were handed to "
                f"{type(self.network).__name__}; name the layer of the classes that it runs"
            )
        positive = as_vectors(embeddings[calls], batch, self.layer)
        return Pair(anchor, positive, self.seen.outputs[self.layer][calls], output)

    def enter(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook of everything around the layer; the first one to get the images is the network."""
        if self.network is not None:
            return None
        image = _image_among((args, kwargs), self.image)
        image = self._views_among((args, kwargs)) if image is None else image
        if image is None:
            return None
        self.network, self._open, self._size = network, self.joint, len(image)
        rows = self._rows
        positive = self.second(image[rows])
        if not self.joint:
            exchange = _exchange(image, positive, rows)
            self._repeat = lambda: network(*tree_map(exchange, args), **tree_map(exchange, kwargs))
            return None
        extend = _extend(image, positive, rows)
        return tree_map(extend, args), tree_map(extend, kwargs)

    def enter_forward(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a call of something around the layer, be it of its ``forward`` alone, which runs no hooks."""
        if self.network is None and self._forward_call is None:
            self._forward_call = network, args, kwargs
            image = _image_among((args, kwargs), self.image)
            self._forward_image = None if image is None else (image, image._version)

    def _take_forward_call(self) -> None:
        """Where no module took the images, one whose forward did is the network."""
        if self.network is not None or self._forward_call is None or self.joint or self._forward is not None:
            return
        if self._forward_image is not None and self._forward_image[0]._version != self._forward_image[1]:
            raise LookupError(
                f"network: {type(self._forward_call[0]).__name__}.forward changes the batch's images in place, and "
                f"would change those with other backgrounds a second time; {_PARTS}"
            )
        self.enter(*self._forward_call)

    def _views_among(self, arguments: Any) -> Tensor | None:
        """Several views of the images in one batch, if that is what entered; the batch's own are noted."""
        batch = len(self.image)
        rank = self.image.ndim
        leaves = (x for x in tree_leaves(arguments) if isinstance(x, Tensor))
        tensors = [x for x in leaves if x.is_floating_point() and x.ndim == rank]
        stacked = next((x for x in tensors if len(x) > batch and len(x) % batch == 0), None)
        if stacked is None or stacked.shape[1:] != self.image.shape[1:]:
            return None
        self.views = self.views or views_of(stacked, self.image)
        if self.views is None:
            raise ValueError(
                f"training_step runs {len(stacked)} images through the network for a batch of {batch}, and no part of "
                "them is the batch's own, to whose masks other backgrounds could be given; let the batch hold one of "
                "the views as it enters, and its mask"
            )
        self._rows = self.views
        return stacked

    def leave(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook: of a joint pass, the user's step gets its own half."""
        if network is not self.network or not self._open:
            return None
        self._open = False
        size, batch = self._size, self.image.shape[0]
        if not any(isinstance(x, Tensor) and x.ndim and x.shape[0] == size + batch for x in tree_leaves(output)):
            raise TypeError(
                f"joint: expected tensors of {size + batch} samples from {type(network).__name__}, got "
                f"{type(output).__name__}, which cannot be cut in two; pass joint=False"
            )
        self._output = tree_map(lambda x: _tail(x, size, batch), output)
        return tree_map(lambda x: _head(x, size, batch), output)

    def enter_part(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of everything that is not around the layer: parts that the step calls by themselves."""
        if self.network is None and self.entered is None:
            self.entered = _image_among((args, kwargs), self.image)

    def _call_again(self) -> Any:
        if self._repeat is not None:
            return self._repeat()
        image = self.image if self.entered is None or self.entered.shape != self.image.shape else self.entered
        if self._forward is not None:
            return self._forward(self.module, self.second(image))
        if not _has_forward(self.module):
            raise LookupError(f"network: {_NO_ENTRY.format(layer=self.layer)}, and the module has no forward; {_PARTS}")
        self.network = self.module  # its hooks are not to act now
        return self.module(self.second(self.image))

    def check_parts(self) -> None:
        """Refuse parts that were given other images than the module's forward would be. Waits for the device.

        Raises:
            LookupError: the step changes them before.
        """
        self._take_forward_call()
        if self._repeat is not None or self.joint or self._forward is not None or self.entered is None:
            return
        entered, image = self.entered.detach(), self.image.detach()
        if not same_images(entered, image) and not (entered.shape == image.shape and bool((entered == image).all())):
            raise LookupError(
                f"network: {_NO_ENTRY.format(layer=self.layer)}: training_step changes them (a normalisation?) and "
                f"hands them to parts, where {type(self.module).__name__}.forward would get them unchanged; {_PARTS}"
            )


@contextmanager
def paired_pass(
    module: nn.Module,
    layer: str,
    image: Tensor,
    second: Callable[[Tensor], Tensor],
    *,
    joint: bool = False,
    views: Views | None = None,
    forward: Forward | None = None,
) -> Iterator[PairedPass]:
    """Watch a training step inside the block, and take a second batch through the same network.

    Args:
        module: the user's module; hooks are on it inside the block only.
        layer: name of the layer whose input is the embedding.
        image: (B, C, H, W) or (B, C, D, H, W), the images of the user's batch.
        second: makes the second batch of the images (B, C, H, W) as they enter the network.
        joint: one pass with both batches in one, instead of one pass each. Other arguments of the network with B
            samples are doubled, and what it returns is cut back to the user's part.
        views: which rows are the batch's own images where several views enter, from an earlier `PairedPass`; finding
            them waits for the device.
        forward: takes the second batch through the module where the step calls no module around the layer with the
            images, but parts one after the other; ``None``: the module's own.

    Yields:
        PairedPass: run the user's step, then `PairedPass.finish`.
    """
    get_layer(module, layer)
    with tap(module, [layer]) as layer_tap, ExitStack() as stack:
        paired = PairedPass(module, layer, image, second, layer_tap, joint, views, forward)
        around = _modules_around(module, layer)
        for outer in around:
            stack.callback(outer.register_forward_pre_hook(paired.enter, with_kwargs=True).remove)
            stack.callback(outer.register_forward_hook(paired.leave, with_kwargs=True).remove)
            if not joint and original_module(outer) is outer:
                enter = functools.partial(paired.enter_forward, outer)
                stack.enter_context(around_calls(outer, enter, lambda _: None))
        for part in _parts_beside(module, around):
            stack.callback(part.register_forward_pre_hook(paired.enter_part, with_kwargs=True).remove)
        yield paired


def as_vectors(embedding: Any, batch: int, layer: str) -> Tensor:
    """(B, D) as it is, tokens (B, T, D) and maps (B, C, H, W) or (B, C, D, H, W) averaged."""
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point() or embedding.ndim not in (2, 3, 4, 5):
        raise TypeError(f"layer {layer!r}: expected a float tensor (B, D) to enter it, got {describe(embedding)}")
    if embedding.shape[0] != batch:
        views, remainder = divmod(embedding.shape[0], batch)
        hint = (
            "" if remainder else f"; training_step hands {views} views of each image to parts of the module, not to one"
        )
        raise ValueError(f"layer {layer!r}: expected {batch} samples to enter it, got {describe(embedding)}{hint}")
    if embedding.ndim == 2:
        return embedding
    return embedding.mean(1) if embedding.ndim == 3 else embedding.mean(tuple(range(2, embedding.ndim)))


_NO_ENTRY = "no module around {layer!r} was called with the images of the batch"
_PARTS = (
    "pass CLADCallback(forward=lambda module, image: ...), which takes images as they enter the first of the parts "
    "through all of them"
)


def _modules_around(module: nn.Module, layer: str) -> list[nn.Module]:
    """The modules that contain the layer, outermost first, compiled wrappers and what they wrap among them."""
    target = get_layer(module, layer)
    return [m for m in module.modules() if m is not target and any(inner is target for inner in m.modules())]


def _parts_beside(module: nn.Module, around: list[nn.Module]) -> list[nn.Module]:
    """The children of the modules around the layer that are not around it themselves."""
    inside = {id(outer) for outer in around}
    children = [child for outer in (around or [module]) for child in outer.children()]
    return [child for child in children if id(child) not in inside and not isinstance(child, torch.jit.ScriptModule)]


def _image_among(arguments: Any, image: Tensor) -> Tensor | None:
    tensors = [x for x in tree_leaves(arguments) if isinstance(x, Tensor) and x.is_floating_point()]
    alike = [x for x in tensors if x.ndim == image.ndim and x.shape[0] == image.shape[0]]
    return next((x for x in tensors if x is image), alike[0] if alike else None)


def _exchange(image: Tensor, positive: Tensor, rows: slice) -> Callable[[Any], Any]:
    """Puts ``positive`` in the image's place; of everything else with a row an image the own rows stay."""

    def exchange(x: Any) -> Any:
        if x is image:
            return positive
        return x[rows] if len(image) != len(positive) and _has_rows(x, len(image)) else x

    return exchange


def _extend(image: Tensor, positive: Tensor, rows: slice) -> Callable[[Any], Any]:
    def extend(x: Any) -> Any:
        if x is image:
            return torch.cat([image, positive])
        return torch.cat([x, x[rows]]) if _has_rows(x, len(image)) else x

    return extend


def _has_rows(x: Any, count: int) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0 and x.shape[0] == count


def _head(x: Any, size: int, more: int) -> Any:
    return x[:size] if _has_rows(x, size + more) else x


def _tail(x: Any, size: int, more: int) -> Any:
    return x[size:] if _has_rows(x, size + more) else x


def _has_forward(module: nn.Module) -> bool:
    """Whether someone wrote a forward: nn.Module's and LightningModule's own only raise."""
    home: str = type(module).forward.__module__
    return home.split(".")[0] not in ("torch", "pytorch_lightning", "lightning")
