"""Checks that what CLAD+ takes for a module's classes is what the module's own step takes its loss of."""

from __future__ import annotations

from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from torch_bgdebias.lightning import answer_widths, binary_widths

__all__ = ["check_answers"]


def check_answers(
    module: nn.Module, output: Any, logits: Tensor, target: Tensor, *, layer: str, is_named: bool
) -> None:
    """Refuse logits of other classes than the step's; warn where the step's loss is no cross-entropy of them.

    Args:
        module: whose step it is.
        output: what the step returned, before its backward pass.
        logits: of the images with other backgrounds, of which CLAD+ takes the cross-entropy.
        target: of the batch.
        layer: the name of the layer that the logits are of.
        is_named: the user has named it.

    Raises:
        ValueError: the step takes its loss of others, or also of others, in number.
    """
    if logits.ndim != 2:
        return
    width, widths = logits.shape[1], answer_widths(output)
    others = [] if is_named else _linear_layers(module, widths - {width})
    if others and width in widths:
        raise ValueError(
            f"layer: training_step takes losses of {' and '.join(map(str, sorted(widths)))} numbers an image, and "
            f"which of them are the classes of the labels that CLAD+ takes is not known; name their layer, {layer!r} "
            f"or {' or '.join(map(repr, others))}, or pass plus=False"
        )
    if widths and width not in widths:
        raise ValueError(
            f"layer: expected {' or '.join(map(str, sorted(widths)))} numbers an image, as many as training_step "
            f"takes its loss of, got {width} from {layer!r}, which CLAD+ would take for classes: name the layer of "
            "the classes, pass criterion= for another loss of the positives, or plus=False"
        )
    are_classes = target.ndim == 1 and not target.is_floating_point() and width > 1
    if are_classes and not widths and width in binary_widths(output):
        rank_zero_warn(
            f"training_step takes binary cross-entropy of {width} numbers an image, and CLAD+ adds the cross-entropy "
            "of their softmax for the images with other backgrounds: to add the module's own loss, pass criterion="
            "lambda logits, target: F.binary_cross_entropy_with_logits(logits, F.one_hot(target, "
            f"{width}).float())"
        )


def _linear_layers(module: nn.Module, widths: set[int]) -> list[str]:
    """Names of the linear layers with so many outputs."""
    return [
        name for name, layer in module.named_modules() if isinstance(layer, nn.Linear) and layer.out_features in widths
    ]
