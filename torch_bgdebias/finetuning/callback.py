"""``FreezeLowerStages``: `freeze_lower_stages` for the duration of a fit."""

from __future__ import annotations

from typing import Any

from torch_bgdebias.checks import describe
from torch_bgdebias.finetuning.freezing import LowerStages, freeze_lower_stages
from torch_bgdebias.lightning import LightningCallback, LightningModule, Trainer

__all__ = ["FreezeLowerStages"]


class FreezeLowerStages(LightningCallback):
    """Freeze the lower stages of a pretrained network and its batch norm statistics during a fit.

    Goes beside any of the other callbacks, of `ISNetCallback` as ``ISNetCallback.finetuning()``.

    Args:
        until: name of the first layer that trains, in the module: ``"net.blocks.5"``; ``None``: where the last stage of
            the module's ``forward`` begins, see `torch_bgdebias.finetuning.last_stage`.
        keep_norms: see `freeze_lower_stages`.

    Raises:
        TypeError: ``until`` is no name.
        LookupError, ValueError: when the fit starts, as `freeze_lower_stages`.

    Example:
        >>> import pytorch_lightning as pl
        >>> callback = FreezeLowerStages()
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False)
    """

    def __init__(self, until: str | None = None, *, keep_norms: bool = True) -> None:
        layer_name: object = until
        if layer_name is not None and not isinstance(layer_name, str):
            raise TypeError(f"until: expected the name of a layer, such as 'net.layer4', got {describe(layer_name)}")
        super().__init__(options={"until": until, "keep_norms": keep_norms})
        self.until, self.keep_norms = until, keep_norms
        #: what is fixed during a fit
        self.stages: LowerStages | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze before the module makes its optimisers, or after ``configure_model`` has made the layers."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.until in dict(pl_module.named_modules()):
            self._freeze(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze the layers that did not exist in ``setup``."""
        if self.stages is None:
            self._freeze(pl_module)

    def _freeze(self, module: LightningModule) -> None:
        self.stages = freeze_lower_stages(module, self.until, keep_norms=self.keep_norms)
        self._restores.append(self._give_back)

    def _give_back(self) -> None:
        if self.stages is not None:
            self.stages.restore()
        self.stages = None

    def state_dict(self) -> dict[str, Any]:
        """Empty: a resumed fit freezes the same layers."""
        return {}
