"""``evaluate_background_bias``: any classifier, any loader with masks, one report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.data.variants import VARIANTS
from torch_bgdebias.models import LogitsKey, eval_mode
from torch_bgdebias.probe.passes.attributions import Attribution, named_attributions
from torch_bgdebias.probe.passes.gathering import BackgroundPool
from torch_bgdebias.probe.passes.loading import Share, rng_untouched
from torch_bgdebias.probe.passes.measure import Evaluation, ImageScore
from torch_bgdebias.probe.results.aggregate import summarise
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport

__all__ = ["DEFAULT_VARIANTS", "ImageScore", "evaluate_background_bias"]

#: what is measured unless the caller says otherwise: all seven of ImageNet-9
DEFAULT_VARIANTS = VARIANTS


def evaluate_background_bias(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    spec: BatchSpec | None = None,
    variants: Sequence[str] | None = None,
    backgrounds: Any = None,
    background_labels: Tensor | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    forward: Callable[[nn.Module, Tensor], Any] | None = None,
    logits: LogitsKey = None,
    layer: str | None = None,
    embeddings: bool = True,
    scores: Mapping[str, ImageScore] | None = None,
    attributions: Sequence[str] | Mapping[str, Attribution] = (),
    explain: str = "predicted",
    ready: int | str | None = None,
    max_batches: int | None = None,
    max_backgrounds: int = 512,
    examples: int = 0,
    name: str | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    progress: Callable[..., Iterable[Any]] | None = None,
) -> BackgroundBiasReport:
    """Measure how much a classifier looks at the background.

    Every image is classified as it is and in the variants of Noise or Signal (see ``data.make_variant``). Backgrounds
    for the mixed variants come from the loader's own images, gathered in a first pass (foregrounds tiled over, the same
    number of every class), or from ``backgrounds``. Which one an image gets depends on ``seed`` and the image's content
    alone, never on batch size, order or neighbours; it never gets its own. The model is in evaluation mode without
    gradients meanwhile and left as found; global random states are left as found too.

    Args:
        model: any module whose output holds logits (B, K), K > 1.
        loader: batches with images (B, C, H, W) float, labels and masks; iterated twice (once with ``backgrounds``), so
            a generator will not do. It should yield the same images each time: no random augmentation.
        spec: where image, label and mask are in a batch.
        variants: names from ``data.VARIANTS``; all seven when ``None``. BG-Gap needs mixed_same and mixed_rand.
        backgrounds: a pool (N, C, Hb, Wb), uint8 (normalised with ``mean`` and ``std``) or float in the images' units,
            or an object with ``images`` and ``labels``, such as a ``BackgroundBank``. They must hold no foregrounds.
        background_labels: (N,) classes of the pool in the numbering of the images' labels; without them only mixed_rand
            is possible, and every image counts as having no partner for the other two.
        num_classes: K, checked against the model's output when given.
        class_names: K names; the data set's ``classes`` when it has K of them, else numbers.
        mean: per channel, that the images were normalised with: makes black black in only_fg, only_bg_b and no_fg, and
            colours right in examples.
        std: goes with ``mean``.
        device: where to evaluate; the model must be there already. By default where its parameters are.
        seed: of the choice of backgrounds and of the bootstrap.
        forward: ``forward(model, image)`` for models that want more than ``model(image)``.
        logits: where the logits are in the output: index, key, attribute or function; by itself when ``None``.
        layer: name of the layer whose **input** is the embedding; the last linear layer when ``None``. When that cannot
            be told, feature consistency is left out with a warning.
        embeddings: read embeddings (feature consistency); off saves the hook.
        scores: further per-image scores of the original images by name.
        attributions: names (``grad_cam``, ``kernel_shap``, ``lrp``, or ``isnet`` for an ``ISNet``), or functions
            (model, image, target (B,)) -> (B, 1, H, W) by name. Each adds the score ``pixel_ratio/<name>`` and a
            heatmap to every example.
        explain: the class that attributions explain, ``"predicted"`` or ``"label"``.
        ready: index or key of a dict in the batch that holds the variants ready made, each as images (B, C, H, W) or as
            (images, background labels (B,), which are there (B,) bool), such as ``data.ImageNet9Variants`` yields;
            ``None`` makes them here.
        max_batches: stop after so many batches.
        max_backgrounds: backgrounds kept in host memory, in the images' dtype (512 of 3 x 224 x 224 take 0.3 GB); at
            least two a class are kept whatever the limit.
        examples: how many of the images that a new background hurt most to keep as pictures, with their heatmaps.
        name: of the model in the report; its class's name when ``None``.
        confidence: of the intervals.
        n_resamples: bootstrap resamples.
        progress: ``progress(batches, total=..., label=...)`` wraps the passes over the loader.

    Raises:
        KeyError: a batch lacks what ``spec`` names (no masks, for instance).
        TypeError, ValueError: anything that does not fit, named: a label that the model has no output for, one logit
            per image, non-finite logits, an empty loader.

    Example:
        >>> import torch
        >>> batch = (torch.rand(8, 3, 8, 8), torch.arange(8) % 2, torch.zeros(8, 1, 8, 8))
        >>> batch[2][:, :, 2:5, 2:5] = 1
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        >>> report = evaluate_background_bias(model, [batch], variants=["mixed_same", "mixed_rand"])
        >>> len(report.images), list(report.variants)
        (8, ['original', 'mixed_same', 'mixed_rand'])
    """
    spec = BatchSpec() if spec is None else spec
    names = tuple(DEFAULT_VARIANTS if variants is None else variants)
    evaluation = Evaluation(
        model, spec, names, mean=mean, std=std, device=device, seed=seed, forward=forward, logits=logits, layer=layer,
        embeddings=embeddings, scores=scores, attributions=named_attributions(attributions, logits=logits, seed=seed),
        explain=explain, ready=ready, num_classes=num_classes, examples=examples,
    )  # fmt: skip
    if evaluation.no_embedding:
        warnings.warn(evaluation.no_embedding, stacklevel=2)
    share = Share(loader, spec, max_batches=max_batches)

    def walk(label: str) -> Iterable[Any]:
        return share if progress is None else progress(share, total=len(share), label=label)

    with rng_untouched(), eval_mode(model), torch.no_grad():
        pool = None
        if backgrounds is not None:
            pool = BackgroundPool.of(backgrounds, background_labels, mean=mean, std=std)
        elif evaluation.mixed and ready is None:
            pool = evaluation.gather(walk("backgrounds"), max_backgrounds).pool()
        images = evaluation.collect(walk("images"), pool)
    if images is None:
        raise ValueError("loader: expected at least one batch with an image, got none")
    counts = evaluation.counts(images, pool)
    options = {"max_batches": max_batches, "max_backgrounds": max_backgrounds, "own_backgrounds": backgrounds is None}
    return summarise(
        images,
        model=type(model).__name__ if name is None else name,
        class_names=evaluation.class_names(class_names, loader),
        confidence=confidence,
        n_resamples=n_resamples,
        seed=seed,
        counts=counts,
        settings={**evaluation.settings(), **options},
        examples=evaluation.examples.examples(),
    )
