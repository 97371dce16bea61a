"""``BackgroundSwapCallback``: background swapping for a LightningModule that knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_bgdebias.backgrounds.stream import StreamedBackgroundBank
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.lightning import LightningModule, StepCall, Trainer, TrainingStepCallback
from torch_bgdebias.swap.module import BackgroundSwap

__all__ = ["BackgroundSwapCallback"]


class BackgroundSwapCallback(TrainingStepCallback):
    """Swap the backgrounds of every training batch before the module's ``training_step`` sees it.

    The user's module stays as it is: no parameter, buffer or submodule is added, and its own ``training_step`` is back
    after the fit, also after a failed one. Validation and test batches are left alone.

    Draws depend on the seed, the process' rank and the number of training batches seen, which is in the checkpoint: a
    resumed run draws the same as an uninterrupted one, on every rank. A `StreamedBackgroundBank` resumes as well.

    Args:
        swap: the augmentation; its bank is moved to the module's device when a fit starts.
        spec: where image, mask and label are in a batch; when it names a place for ``background_label`` and the batch
            has one, the new backgrounds' classes are written there.
        schedule: probability of a swap in an epoch, a function of its number (from 0); the swap's own ``p`` by default.
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

    def __init__(
        self,
        swap: BackgroundSwap,
        spec: BatchSpec | None = None,
        *,
        schedule: Callable[[int], float] | None = None,
        start_epoch: int = 0,
        seed: int = 0,
        refresh: int = 8,
        log: bool = True,
    ) -> None:
        super().__init__(seed)
        if not isinstance(swap, BackgroundSwap):
            raise TypeError(f"swap: expected a BackgroundSwap, got {type(swap).__name__}")
        if start_epoch < 0 or refresh < 0:
            raise ValueError(f"start_epoch, refresh: expected 0 or more, got {start_epoch}, {refresh}")
        self.swap = swap
        self.spec = spec or BatchSpec()
        self.schedule = schedule
        self.start_epoch = start_epoch
        self.refresh = refresh
        self._logs = log  # Lightning writes its own `log` onto callbacks

    @property
    def state_key(self) -> str:
        """Tells several swaps of one trainer apart, by pattern, seed and first epoch."""
        return self._generate_state_key(pattern=self.swap.pattern, seed=self.seed, start_epoch=self.start_epoch)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the module to its device."""
        self.swap.to(pl_module.device)
        if self.swap.bank is not None:
            self.swap.bank.to(pl_module.device)

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

    def probability(self, epoch: int) -> float:
        """Probability of a swap in an epoch."""
        if epoch < self.start_epoch:
            return 0.0
        return self.swap.p if self.schedule is None else float(self.schedule(epoch))

    def _step(self, call: StepCall) -> Any:
        module = call.module
        p = self.probability(module.current_epoch)
        if isinstance(self.swap.bank, StreamedBackgroundBank) and p > 0:
            self.swap.bank.refresh(min(self.refresh, len(self.swap.bank)))
        call.batch = self._swapped(call.batch, module, p)
        self.steps += 1
        return call.run()

    def _swapped(self, batch: Any, module: LightningModule, p: float) -> Any:
        spec = self.spec
        image, mask = spec.image_of(batch), spec.mask_of(batch)
        label = None if spec.label is None else spec.label_of(batch)
        generator = self._seeded(module)
        params = self.swap.generate_parameters(image.shape, label, p=p, device=image.device, generator=generator)
        fields = {"image": image if p == 0 else self.swap(image, mask=mask, label=label, params=params)}
        if spec.background_label is not None:
            fields["background_label"] = params["background_label"]
        if self._logs:
            fraction = params["apply"].float().mean()
            name = "background_swap/fraction"
            module.log(name, fraction, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(image))
        return spec.replace(batch, **fields)
