"""A second batch through a borrowed network: along with the user's own forward pass, or right after it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from torch_bgdebias.checks import describe
from torch_bgdebias.models import LayerTap, get_layer, tap

__all__ = ["Pair", "PairedPass", "paired_pass"]


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

    The network is the outermost module around ``layer`` that is called with the images. It is watched, never changed;
    with ``joint`` its input is extended and its output cut back for the one call.
    """

    def __init__(
        self,
        module: nn.Module,
        layer: str,
        image: Tensor,
        second: Callable[[Tensor], Tensor],
        seen: LayerTap,
        joint: bool,
    ) -> None:
        self.module, self.layer, self.image = module, layer, image
        self.second, self.seen, self.joint = second, seen, joint
        self.network: nn.Module | None = None
        self._open = False
        self._repeat: Callable[[], Any] | None = None
        self._output: Any = None

    def finish(self) -> Pair:
        """Take the second batch through (unless that is done) and return both embeddings.

        Raises:
            LookupError: the images went another way, or the layer was not used.
        """
        seen, batch = self.seen.inputs[self.layer], self.image.shape[0]
        if not seen:
            raise LookupError(
                f"layer: {self.layer!r} took no part in training_step; name the layer whose input is the embedding"
            )
        if self.joint:
            if self.network is None:
                raise LookupError(f"joint: {_NO_ENTRY.format(layer=self.layer)}; pass joint=False")
            both = as_vectors(seen[0], 2 * batch, self.layer)
            layer_output = tree_map(lambda x: _tail(x, batch), self.seen.outputs[self.layer][0])
            return Pair(both[:batch], both[batch:], layer_output, self._output)
        anchor, calls = as_vectors(seen[0], batch, self.layer), len(seen)
        output = self._again()
        if len(seen) == calls:
            raise LookupError(f"layer: {self.layer!r} took no part in the second forward pass")
        positive = as_vectors(seen[calls], batch, self.layer)
        return Pair(anchor, positive, self.seen.outputs[self.layer][calls], output)

    def enter(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook of everything around the layer; the first one to get the images is the network."""
        if self.network is not None:
            return None
        image = _image_among((args, kwargs), self.image)
        if image is None:
            return None
        if image is not self.image:
            warnings.warn(
                f"training_step changes the images before {type(network).__name__} gets them: backgrounds are "
                "exchanged in what it gets, right after a normalisation, not after flips, crops, mixup or CutMix, of "
                "which the masks, and the targets of CLAD+, know nothing",
                stacklevel=2,
            )
        self.network, self._open = network, self.joint
        other = self.second(image)
        if not self.joint:
            exchange = _exchange(image, other)
            self._repeat = lambda: network(*tree_map(exchange, args), **tree_map(exchange, kwargs))
            return None
        extend = _extend(image, other)
        return tree_map(extend, args), tree_map(extend, kwargs)

    def leave(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook: of a joint pass, the user's step gets its own half."""
        if network is not self.network or not self._open:
            return None
        self._open = False
        batch = self.image.shape[0]
        if not any(isinstance(x, Tensor) and x.ndim and x.shape[0] == 2 * batch for x in tree_leaves(output)):
            raise TypeError(
                f"joint: expected tensors of {2 * batch} samples from {type(network).__name__}, got "
                f"{type(output).__name__}, which cannot be cut in halves; pass joint=False"
            )
        self._output = tree_map(lambda x: _tail(x, batch), output)
        return tree_map(lambda x: _head(x, batch), output)

    def _again(self) -> Any:
        if self._repeat is not None:
            return self._repeat()
        if not _has_forward(self.module):
            raise LookupError(f"network: {_NO_ENTRY.format(layer=self.layer)}, and the module has no forward")
        self.network = self.module  # the step went around its hooks (self.forward(image)); they are not to act now
        return self.module(self.second(self.image))


@contextmanager
def paired_pass(
    module: nn.Module, layer: str, image: Tensor, second: Callable[[Tensor], Tensor], *, joint: bool = False
) -> Iterator[PairedPass]:
    """Watch a training step inside the block, and take a second batch through the same network.

    Args:
        module: the user's module; hooks are on it inside the block only.
        layer: name of the layer whose input is the embedding.
        image: (B, C, H, W), the images of the user's batch.
        second: makes the second batch of what enters the network.
        joint: one pass with both batches in one, instead of one pass each. Other arguments of the network with B
            samples are doubled, and what it returns is cut back to the user's half.

    Yields:
        PairedPass: run the user's step, then `PairedPass.finish`.
    """
    get_layer(module, layer)
    with tap(module, [layer]) as seen, ExitStack() as stack:
        paired = PairedPass(module, layer, image, second, seen, joint)
        for outer in _around(module, layer):
            stack.callback(outer.register_forward_pre_hook(paired.enter, with_kwargs=True).remove)
            stack.callback(outer.register_forward_hook(paired.leave, with_kwargs=True).remove)
        yield paired


def as_vectors(embedding: Any, batch: int, layer: str) -> Tensor:
    """(B, D) as it is, tokens (B, T, D) and maps (B, C, H, W) averaged."""
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point() or embedding.ndim not in (2, 3, 4):
        raise TypeError(f"layer {layer!r}: expected a float tensor (B, D) to enter it, got {describe(embedding)}")
    if embedding.shape[0] != batch:
        views, rest = divmod(embedding.shape[0], batch)
        hint = f"; does training_step run {views} views of each image in one batch? CLAD takes one" if not rest else ""
        raise ValueError(f"layer {layer!r}: expected {batch} samples to enter it, got {describe(embedding)}{hint}")
    if embedding.ndim == 2:
        return embedding
    return embedding.mean(1) if embedding.ndim == 3 else embedding.mean((2, 3))


_NO_ENTRY = "no module around {layer!r} was called with the images of the batch"


def _around(module: nn.Module, layer: str) -> list[nn.Module]:
    """The modules that contain the layer, outermost first, compiled wrappers and what they wrap among them."""
    target = get_layer(module, layer)
    return [m for m in module.modules() if m is not target and any(inner is target for inner in m.modules())]


def _image_among(arguments: Any, image: Tensor) -> Tensor | None:
    tensors = [x for x in tree_leaves(arguments) if isinstance(x, Tensor) and x.is_floating_point()]
    alike = [x for x in tensors if x.ndim == 4 and x.shape[0] == image.shape[0]]
    return next((x for x in tensors if x is image), alike[0] if alike else None)


def _exchange(image: Tensor, other: Tensor) -> Callable[[Any], Any]:
    return lambda x: other if x is image else x


def _extend(image: Tensor, other: Tensor) -> Callable[[Any], Any]:
    def extend(x: Any) -> Any:
        if x is image:
            return torch.cat([image, other])
        if isinstance(x, Tensor) and x.ndim and x.shape[0] == image.shape[0]:
            return torch.cat([x, x])
        return x

    return extend


def _head(x: Any, batch: int) -> Any:
    return x[:batch] if isinstance(x, Tensor) and x.ndim and x.shape[0] == 2 * batch else x


def _tail(x: Any, batch: int) -> Any:
    return x[batch:] if isinstance(x, Tensor) and x.ndim and x.shape[0] == 2 * batch else x


def _has_forward(module: nn.Module) -> bool:
    """Whether someone wrote a forward: nn.Module's and LightningModule's own only raise."""
    home: str = type(module).forward.__module__
    return home.split(".")[0] not in ("torch", "pytorch_lightning", "lightning")
