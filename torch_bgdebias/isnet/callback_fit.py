"""Checks of ``ISNetCallback`` in a fit's first steps: what enters the network, and whether its output decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from torch_bgdebias.checks import describe
from torch_bgdebias.isnet.decision import link_to_loss
from torch_bgdebias.lightning import answer_widths
from torch_bgdebias.models import find_head
from torch_bgdebias.moved_pixels import ChangeWatch, Views, views_of

__all__ = ["Fit", "loss_of", "ways_to_name_it"]

_WHAT_TO_DO = (
    "move images and masks together: in the data set, or in on_after_batch_transfer, before training_step gets them"
)


class Fit:
    """What a fit's first steps have shown.

    Args:
        called: the network, as error messages name it.
    """

    def __init__(self, called: str) -> None:
        self.called = called
        #: which rows of what enters the network are the batch's own images; ``None``: all
        self.views: Views | None = None
        self._decides = False
        self._decisive: int | None = None
        self._changes = ChangeWatch(self._warn)

    def before(self, image: Tensor) -> Tensor:
        """The batch's images as they are before a step, for `look_at`."""
        return image if self.views is not None else self._changes.before(image)

    def look_at(self, model_input: Tensor, image: Tensor) -> None:
        """Compare what entered the network with the batch's images as they were `before` the step.

        Raises:
            ValueError: the batch's masks cannot fit what entered.
        """
        if len(model_input) != len(image) or model_input.shape[2:] != image.shape[2:]:
            self._find_views(model_input, image)
            return
        self._changes.look_at(model_input, image)

    def say(self) -> None:
        """Warn, once, if images were found to be changed; waits for the device where they are on one."""
        self._changes.say()

    def _warn(self) -> None:
        rank_zero_warn(
            f"training_step changes the images before {self.called} gets them by more than a normalisation (a "
            "flip, a crop, a mix of images?), and the batch's masks know nothing of it: ISNetCallback then trains "
            f"against masks that do not fit. To mend it, {_WHAT_TO_DO}"
        )

    def _find_views(self, model_input: Tensor, image: Tensor) -> None:
        if self.views is not None and len(model_input) % len(image) == 0:
            return
        self.views = views_of(model_input, image)
        if self.views is None:
            raise ValueError(
                f"training_step runs other images through {self.called} than the batch has: {describe(model_input)} "
                f"entered, the batch holds {describe(image)}, and no part of the former is the latter, so its masks "
                f"do not fit; {_WHAT_TO_DO}"
            )
        rank_zero_warn(
            f"training_step runs {len(model_input)} images through {self.called} for a batch of {len(image)}: the "
            "heatmap loss of ISNetCallback looks at those that are the batch's own, for other views there are no masks"
        )

    def decisive_pass(self, loss: Tensor, logits: Sequence[Tensor]) -> int:
        """Which of a step's passes its loss is made of: the first, unless nothing leads from the loss to it.

        Callbacks further in may have added passes after it, and a step may have made its images with one before
        (adversarial training).
        """
        if len(logits) == 1:
            return 0
        if self._decisive is None:
            linked = (number for number, output in enumerate(logits) if link_to_loss(loss, output) != "none")
            self._decisive = next(linked, 0)
        return min(self._decisive, len(logits) - 1)

    def look_at_loss(self, loss: Tensor, logits: Tensor) -> None:
        """Refuse a network whose output is not what the step decides by; once.

        Raises:
            RuntimeError: further layers follow, or the loss does not depend on what the network returned.
        """
        if self._decides:
            return
        link, widths = link_to_loss(loss, logits), answer_widths(loss)
        width = logits.shape[1] if logits.ndim > 1 else 1
        if link == "features" or (link == "logits" and widths and width not in widths):
            raise RuntimeError(
                f"network: {self.called} returned a {describe(logits.detach())} that goes through further layers "
                "before it becomes training_step's loss: these are features and no logits, and explaining them would "
                "not explain the decision; pass ISNetCallback(network=...) with the submodule whose output is the "
                "logits, or the names of the first and the last part, network=('backbone', 'head')"
            )
        if link == "none":
            raise RuntimeError(
                f"network: training_step's loss does not depend on what {self.called} returned (detached, or another "
                "call's output was used), so its heatmaps are not those of the decision; pass "
                "ISNetCallback(network=...) with the submodule whose output the loss is computed from"
            )
        self._decides = True


def loss_of(output: Any) -> Tensor:
    """The loss in what a training step returned.

    Raises:
        TypeError: there is none.
    """
    loss = output.get("loss") if isinstance(output, dict) else output
    if not isinstance(loss, Tensor):
        raise TypeError(f"training_step: expected a loss tensor or a dict with 'loss', got {type(output).__name__}")
    return loss


def ways_to_name_it(module: nn.Module, network: str | tuple[str, str] | None) -> str:
    """What ``network`` can be for a module whose step did not call what was expected.

    Args:
        module: the LightningModule.
        network: what was expected.
    """
    children = {name: child for name, child in module.named_children() if next(child.parameters(), None) is not None}
    children_text = ", ".join(f"{name} ({type(child).__name__})" for name, child in children.items() if name != network)
    single = (
        f"pass ISNetCallback(network=...) with the submodule that maps images to logits: {children_text}; or, "
        if children_text
        else ""
    )
    first, *others = children or [""]
    pairs = [(first, other) for other in others]
    if len(children) < 2:  # a network whose own parts are called: its first layer and its head
        leaves = [(name, layer) for name, layer in module.named_modules() if not list(layer.children())]
        layers = [name for name, layer in leaves if next(layer.parameters(), None) is not None]
        pairs = [(layers[0], _head_of(module, layers))] if layers else []
    where = "where training_step calls parts one after the other, with the first of them and the one that returns the "
    return f"{single}{where}logits: network={' or '.join(map(repr, pairs))}"


def _head_of(module: nn.Module, layers: Sequence[str]) -> str:
    try:
        return find_head(module)[0]
    except LookupError:
        return layers[-1]
