"""Validation metrics of ``ISNetCallback``: the heatmap loss, and where the relevance lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.calls import around_calls
from torch_bgdebias.checks import describe
from torch_bgdebias.isnet.calls import place_of_image
from torch_bgdebias.isnet.class_masks import loss_mask
from torch_bgdebias.isnet.loss import ISNetLoss
from torch_bgdebias.isnet.record import Explanation
from torch_bgdebias.isnet.shares import foreground_share, pixel_ratio
from torch_bgdebias.isnet.wrapper import ISNet
from torch_bgdebias.lightning import LightningModule, StepCall, Trainer
from torch_bgdebias.models import original_module
from torch_bgdebias.moved_pixels import views_of
from torch_bgdebias.seeds import derive_seed

__all__ = ["Validation", "loader_names", "log_figures"]


class _Content(NamedTuple):
    """What a batch holds before a step, which may take things out of it."""

    image: Tensor
    mask: Tensor
    void: Tensor | None
    label: Tensor | None


class Validation:
    """Explains what entered the network in a validation step, after it, and says how well it went.

    Args:
        isnet: around the network.
        spec: where things are in a batch.
        called: the network, as error messages name it.
        seed: of the random choices; a batch's are the same in every epoch.
    """

    def __init__(self, isnet: ISNet, spec: BatchSpec, called: str, seed: int) -> None:
        self._isnet, self._spec, self._called, self._seed = isnet, spec, called, seed
        self._batches = 0
        self.loader = 0

    def epoch(self) -> None:
        """The data begins anew."""
        self._batches = 0

    def __call__(self, call: StepCall, loss: ISNetLoss, weight: float) -> tuple[Any, dict[str, tuple[Tensor, int]]]:
        """Run the step; what it returned, and by name a mean with the number of images that it is over.

        Args:
            call: of ``validation_step``.
            loss: the heatmap loss as it is now.
            weight: P.

        Raises:
            RuntimeError: the step did not call the network.
            KeyError: the batch has no masks.
            ValueError: other images than the batch's entered the network.
        """
        content = _content_of(call.batch, self._spec)
        inputs: list[Tensor] = []

        def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not inputs:  # the network may change it in place
                argument = place_of_image(args, kwargs)
                inputs.append((args[0] if argument is None else kwargs[argument]).detach().clone())

        with around_calls(original_module(self._isnet.model), enter, lambda output: None):
            output = call.run()
        if not inputs:
            raise RuntimeError(
                f"validate: validation_step did not call {self._called}, so there is nothing to explain; name the "
                "network that it calls, ISNetCallback(network=...), or pass validate=False"
            )
        device = call.module.device
        number = derive_seed(self._seed, self.loader, self._batches)
        generator = torch.Generator(device).manual_seed(number)
        self._batches += 1
        image = _rows_of_batch(inputs[0], content.image, self._called)
        explanation = self._isnet.explain(image, create_graph=False, generator=generator)
        with torch.no_grad():
            return output, self._figures(content, explanation, loss, weight)

    def _figures(
        self, content: _Content, explanation: Explanation, loss: ISNetLoss, weight: float
    ) -> dict[str, tuple[Tensor, int]]:
        rank = explanation.relevance.ndim - 1
        mask, void = loss_mask(content.mask, self._isnet.rules, rank), content.void
        void_args = () if void is None else (void,)
        terms = loss.terms(explanation.relevance, mask, explanation.hidden, *void_args)
        size = len(explanation.logits)
        heatmap_loss = terms.loss.mean()
        figures = {
            "heatmap_loss": (heatmap_loss, size),
            "background": (terms.background.mean(), size),
            "foreground": (terms.foreground.mean(), size),
        }
        if explanation.relevance.shape[2]:  # at_input=False has no heatmaps of the input
            for name, share in (("foreground_share", foreground_share), ("pixel_ratio", pixel_ratio)):
                values = share(explanation.relevance, mask, void)
                is_known = ~values.isnan()
                # an image without relevance says nothing of where it lies
                figures[name] = (values.nan_to_num().sum() / is_known.sum().clamp(min=1), int(is_known.sum()))
        entropy = self._entropy(content.label, explanation.logits)
        if entropy is not None:
            figures["loss"] = ((1 - weight) * entropy + weight * heatmap_loss, size)
        return figures

    def _entropy(self, label: Tensor | None, logits: Tensor) -> Tensor | None:
        """Cross-entropy of the answers; ``None`` where the labels are not of a kind that has one."""
        if label is None:
            return None
        label = label.to(logits.device)
        if self._isnet.rules.multi_label:
            fits = label.shape == logits.shape
            return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype)) if fits else None
        if logits.ndim == 1:  # one logit an image
            return None
        if label.ndim == 1 and not label.is_floating_point() and len(label) == len(logits) and logits.shape[1] > 1:
            return F.cross_entropy(logits, label.long())
        shares = label.shape == logits.shape and label.is_floating_point() and logits.shape[1] > 1
        return F.cross_entropy(logits, label.to(logits.dtype)) if shares else None


def _content_of(batch: Any, spec: BatchSpec) -> _Content:
    label = None if spec.label is None else spec.label_of(batch)
    return _Content(spec.image_of(batch), spec.mask_of(batch), spec.void_of(batch), label)


def _rows_of_batch(model_input: Tensor, image: Tensor, called: str) -> Tensor:
    """The rows of the images that entered which are the batch's own."""
    if model_input.shape == image.shape:
        return model_input
    views = views_of(model_input, image)
    if views is None:
        raise ValueError(
            f"validate: validation_step runs other images through {called} than the batch has: {describe(model_input)} "
            f"entered, the batch holds {describe(image)}, so its masks do not fit; pass validate=False"
        )
    return model_input[views]


def loader_names(trainer: Trainer, names_given: Sequence[str]) -> list[str]:
    """Names of the validation loaders for the log, none where there is only one.

    Raises:
        ValueError: another number of names was given than there are loaders.
    """
    loaders = trainer.val_dataloaders
    if isinstance(loaders, Mapping):
        names = [str(name) for name in loaders]
    else:
        names = [str(i) for i in range(len(loaders))] if isinstance(loaders, list | tuple) else ["0"]
    if names_given:
        if len(names_given) != len(names):
            raise ValueError(f"validate: expected {len(names)} names, one a validation loader, got {list(names_given)}")
        names = list(names_given)
    return names if len(names) > 1 or names_given else []


def log_figures(
    module: LightningModule, figures: Mapping[str, tuple[Tensor, int]], *, prefix: str, loader: str
) -> None:
    """Log means over the epoch under ``<prefix>/val_<what>``, and ``/<loader>`` where there are several."""
    ending = f"/{loader}" if loader else ""
    for name, (value, count) in figures.items():
        module.log(
            f"{prefix}/val_{name}{ending}",
            value,
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=count,
            add_dataloader_idx=False,
        )
