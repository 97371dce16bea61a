"""Freezes a network's lower stages and their batch norm statistics until they are released."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from torch_bgdebias.checks import describe
from torch_bgdebias.models import get_layer
from torch_bgdebias.stages import last_stage

__all__ = ["LowerStages", "freeze_lower_stages"]


class LowerStages:
    """The frozen layers of `freeze_lower_stages`; as a context manager it releases them at the end.

    Attributes:
        fixed: names of the parameters that no longer train.
        norms: names of the batch norms that keep their running statistics.
    """

    def __init__(self, fixed: dict[str, nn.Parameter], norms: Mapping[str, nn.Module]) -> None:
        self.fixed, self.norms = list(fixed), list(norms)
        self._parameters = list(fixed.values())
        self._modes = [(norm, norm.training) for norm in norms.values()]
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        self._handles = [norm.register_forward_pre_hook(_keep_statistics) for norm in norms.values()]

    def restore(self) -> None:
        """Unfreeze whatever trained before; further calls do nothing."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        for norm, training in self._modes:
            norm.train(training)
        self._handles, self._parameters, self._modes = [], [], []

    def __enter__(self) -> LowerStages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def freeze_lower_stages(model: nn.Module, until: str | None = None, *, keep_norms: bool = True) -> LowerStages:
    """Freeze all parameters that the model registered before those of a layer, and all batch norm statistics.

    A few hundred images teach a pretrained network less than its lower stages already know; what they would change
    there is mostly how the network sees the training backgrounds.

    Args:
        model: any network whose modules are registered in the order in which they run, as timm's and torchvision's.
        until: name of the first layer that trains, such as ``"blocks.5"`` or ``"layer4"``; ``None``: where the last
            stage begins, see `last_stage`.
        keep_norms: batch norms, the trained part's too, use and keep their running statistics; their weights train.
            ``False``: those of the fixed part alone.

    Returns:
        What was fixed; ``restore()``, or leaving ``with``, lets it train again.

    Raises:
        TypeError: ``model`` is no module, or ``until`` no name. LookupError: no such layer, or no last stage.
        ValueError: nothing lies before the layer, or it has no parameters.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
        >>> with freeze_lower_stages(model, until="3") as stages:
        ...     print(stages.fixed, stages.norms)
        ['0.weight', '0.bias', '1.weight', '1.bias'] ['1']
        >>> all(parameter.requires_grad for parameter in model.parameters())
        True
    """
    model_object: object = model
    if not isinstance(model_object, nn.Module):
        raise TypeError(f"model: expected an nn.Module, got {describe(model_object)}")
    layer_name: object = until
    if layer_name is not None and not isinstance(layer_name, str):
        raise TypeError(f"until: expected the name of a layer, such as 'layer4', got {describe(layer_name)}")
    try:
        until = last_stage(model).first if until is None else until
        first = next(iter(get_layer(model, until).parameters()), None)
    except LookupError as error:
        raise LookupError(f"until: {error.args[0]}") from None
    if first is None:
        raise ValueError(f"until: expected a layer with parameters, got {until!r} without any; name the one after it")
    before: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if parameter is first:
            break
        before[name] = parameter
    if not before:
        raise ValueError(f"until: expected a layer after others, got {until!r}, before which the model has nothing")
    owners = {name.rpartition(".")[0] for name in before}
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and (keep_norms or name in owners)
    }
    return LowerStages({name: p for name, p in before.items() if p.requires_grad}, norms)


def _keep_statistics(norm: nn.Module, inputs: Any) -> None:
    """Regardless of later calls of ``model.train()``."""
    if norm.training:
        norm.eval()
