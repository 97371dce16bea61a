"""``BackgroundSwapCallback``: background swapping for any LightningModule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from torch_bgdebias._deprecated import warn_renamed
from torch_bgdebias.backgrounds.stream import StreamedBackgroundBank
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_count, describe
from torch_bgdebias.lightning import LightningModule, Schedule, StepCall, TrainingStepCallback
from torch_bgdebias.swap.module import BackgroundSwap

__all__ = ["BackgroundSwapCallback", "SwappingCallback"]


class SwappingCallback(TrainingStepCallback):
    """A training-step callback that has a swap: its bank follows the module, and a stream's place is in the checkpoint.

    Args:
        swap: the augmentation.
        spec: where image, mask and label are in a batch.
        refresh: images that a `StreamedBackgroundBank` exchanges a step.
        seed, log, options: see `torch_bgdebias.lightning.LightningCallback`.

    Raises:
        TypeError: ``swap`` is no BackgroundSwap.
        ValueError: a negative ``refresh``.
    """

    def __init__(
        self,
        swap: BackgroundSwap,
        spec: BatchSpec | None,
        *,
        refresh: int,
        seed: int,
        log: bool | str,
        options: Mapping[str, object],
    ) -> None:
        if not isinstance(swap, BackgroundSwap):
            raise TypeError(f"swap: expected a BackgroundSwap, got {describe(swap)}")
        check_count(refresh, name="refresh", least=0)
        self.swap, self.refresh = swap, refresh
        super().__init__(seed, log=log, spec=spec, options={"swap": swap, "refresh": refresh, **options})

    def state_dict(self) -> dict[str, Any]:
        """Batches seen and the seed, the same on every rank; a streamed bank's place in its folder."""
        state = super().state_dict()
        if isinstance(self.swap.bank, StreamedBackgroundBank):
            state["bank"] = self.swap.bank.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on drawing where the checkpoint was written."""
        super().load_state_dict(state_dict)
        if isinstance(self.swap.bank, StreamedBackgroundBank) and "bank" in state_dict:
            self.swap.bank.load_state_dict(state_dict["bank"])

    def _prepare(self, module: LightningModule) -> None:
        """Follow the module to its device."""
        self.swap.to(module.device)
        if self.swap.bank is not None:
            self.swap.bank.to(module.device)

    def _refresh_bank(self) -> None:
        if isinstance(self.swap.bank, StreamedBackgroundBank) and not self._again:
            self.swap.bank.refresh(min(self.refresh, len(self.swap.bank)))


class BackgroundSwapCallback(SwappingCallback):
    """Swap the backgrounds of every training batch before the module's ``training_step`` sees it.

    The user's module stays as it is: no parameter, buffer or submodule is added, and its own ``training_step`` is back
    after the fit, however it ends. Validation and test batches are left alone.

    Draws depend on the seed, the process' rank and the number of training batches seen, which is in the checkpoint: a
    resumed run draws the same as an uninterrupted one, on every rank. A `StreamedBackgroundBank` resumes as well.

    Args:
        swap: the augmentation; its bank is moved to the module's device in the first step.
        spec: where image, mask and label are in a batch; when it names a place for ``background_label`` and the batch
            has one, the new backgrounds' classes are written there. Labels are needed only where the swap looks for
            another class (``different_class``); elsewhere they may be anything, or absent.
        schedule: probability of a swap, a function of the epoch and of the training batches seen, both from 0; the
            swap's own ``p`` by default.
        start_epoch: no swapping before it.
        seed: of the draws.
        refresh: images that a `StreamedBackgroundBank` exchanges a step.
        log: log ``background_swap/fraction``, the share of images that got another background, per epoch.

    Raises:
        TypeError: ``swap`` is no BackgroundSwap.
        ValueError: a negative ``start_epoch`` or ``refresh``.

    Example:
        >>> import pytorch_lightning as pl
        >>> callback = BackgroundSwapCallback(BackgroundSwap("batch"), BatchSpec(image="pixels", label="y", mask="seg"))
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False)
    """

    log_prefix: ClassVar[str] = "background_swap"

    def __init__(
        self,
        swap: BackgroundSwap,
        spec: BatchSpec | None = None,
        *,
        schedule: Schedule | None = None,
        start_epoch: int = 0,
        seed: int = 0,
        refresh: int = 8,
        log: bool | str = True,
    ) -> None:
        check_count(start_epoch, name="start_epoch", least=0)
        options = {"schedule": schedule, "start_epoch": start_epoch}
        super().__init__(swap, spec, refresh=refresh, seed=seed, log=log, options=options)
        self.schedule = _accept_epoch_schedule(schedule)
        self.start_epoch = start_epoch

    def probability(self, epoch: int, step: int = 0) -> float:
        """The swap probability at an epoch, after so many training batches."""
        if epoch < self.start_epoch:
            return 0.0
        return self.swap.p if self.schedule is None else float(self.schedule(epoch, step))

    def _step(self, call: StepCall) -> Any:
        p = self.probability(call.module.current_epoch, self.steps)
        if p > 0:
            self._refresh_bank()
        call.batch = self._swapped(call.batch, call.module, p)
        return call.run()

    def _swapped(self, batch: Any, module: LightningModule, p: float) -> Any:
        spec = self.spec
        image, mask = spec.image_of(batch), spec.mask_of(batch)
        if not image.is_floating_point():
            raise TypeError(
                f"image: expected a floating point tensor, got {describe(image)}; backgrounds are exchanged in the "
                "batch, so convert it before the step (on_after_batch_transfer)"
            )
        params = self.swap.generate_parameters(
            image.shape, self._label(batch), p=p, device=image.device, generator=self._seeded(module)
        )
        fields: dict[str, Tensor] = {}
        if p > 0:
            keys = ("input", "mask")
            fields["image"], hidden = self.swap(image, mask, params=params, void=spec.void_of(batch), data_keys=keys)
            if "placement" in params:
                fields["mask"] = hidden
        if spec.background_label is not None:
            fields["background_label"] = params["background_label"]
        self._log_values(module, {"fraction": params["apply"].float().mean()}, batch_size=len(image))
        return spec.replace(batch, **fields)

    def _label(self, batch: Any) -> Tensor | None:
        """One class an image where the batch has them, ``None`` where it has not and none is needed."""
        bank = self.swap.bank
        needed = bool(self.swap.different_class) and (bank is None or bank.labels is not None)
        if self.spec.label is None:
            return None  # the swap says what is missing
        try:
            label = self.spec.label_of(batch)
        except (KeyError, TypeError):
            if needed:
                raise
            return None
        if label.ndim == 1 and not label.is_floating_point():
            return label
        if needed:
            raise TypeError(
                f"label: expected one class an image (B,), got {describe(label)}; pass "
                "BackgroundSwap(different_class=False), which needs no labels, or BatchSpec(label=function of the "
                "batch) that makes one class an image, for example lambda batch: batch[1].argmax(1)"
            )
        return None


def _accept_epoch_schedule(schedule: Schedule | None) -> Schedule | None:
    """The schedule; one of the epoch alone, as in earlier releases, goes on working."""
    if schedule is None:
        return None
    try:
        inspect.signature(schedule).bind(0, 0)
    except TypeError:
        warn_renamed("schedule(epoch)", "schedule(epoch, step)", stacklevel=3)
        of_epoch: Any = schedule
        return lambda epoch, step: float(of_epoch(epoch))
    except ValueError:  # a built-in function without a signature
        pass
    return schedule
