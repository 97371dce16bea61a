"""``evaluate_background_bias``: any classifier, any loader with masks, one report."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from torch_bgdebias.backgrounds.pool import BackgroundSource
from torch_bgdebias.checks import check_count
from torch_bgdebias.class_names import known_names, names_of_classes, require_same_order
from torch_bgdebias.models import eval_mode
from torch_bgdebias.names import VARIANTS
from torch_bgdebias.probe.passes.gathering import BackgroundPool, pool_for
from torch_bgdebias.probe.passes.identity import KnownFiles
from torch_bgdebias.probe.passes.loading import Share, known_files, rng_untouched, unshown_void
from torch_bgdebias.probe.passes.measure import Collected, Evaluation, joined
from torch_bgdebias.probe.passes.settings import EvaluationOptions, EvaluationSettings, ImageScore
from torch_bgdebias.probe.report import BackgroundBiasReport, summarise
from torch_bgdebias.probe.results.order import other_order

__all__ = ["DEFAULT_VARIANTS", "EvaluationSettings", "ImageScore", "evaluate_background_bias", "report_of"]

#: what is measured unless the caller says otherwise: all seven of ImageNet-9
DEFAULT_VARIANTS = VARIANTS

_SOFTMAX = (
    "model output: every row is at least 0 and adds up to 1, or to 100, so a softmax was taken already: its "
    "logarithm is used as logits; pass logits= to say where the logits are"
)
_SIGMOID = (
    "model output: the model takes a sigmoid of its logits: they are classified at 0.5, which is 0 of the logits; pass "
    "logits= to say where the logits are"
)
_SIGMOIDS = (
    "model output: the model takes a sigmoid of each class's logit: the class of the largest is its answer, and how "
    "sure it is is the softmax of the logits, which it was not trained for; pass logits= to say where the logits are"
)
_SHARES = (
    "model output: all values lie in [0, {whole}] and are taken for logits; if they are shares of some kind "
    "(likenesses, a softmax of which classes were left out), answers and accuracies hold, but how sure they "
    "are, AUC and calibration do not; pass logits= to say where the logits are"
)
_SHARES_OF_YES = (
    "model output: all values lie in [0, {whole}] and are taken for logits, which say yes above 0, that is always; if "
    "they are probabilities pass logits=lambda output: (output / {whole}).logit(1e-6), or say where the logits are"
)
#: from so many images on, one answer to all of them is no accident
_MANY = 20
#: share of the images that may be the same as others before it is told
_REPEATED = 0.02
#: share of the images that come again in a second pass, but for what floating point may do
_MET = 0.95
#: a mask that is object anywhere reaches more than this, soft edges and all
_FAINT = 0.75
#: masks that must be seen, and standard errors by which their edges fit their own pictures otherwise than other ones
_ENOUGH_MASKS, _FITTING = 64, 2.0
#: share of the pictures' edges that objects hardly ever cover
_INVERTED = 0.5


def evaluate_background_bias(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    settings: EvaluationSettings | None = None,
    backgrounds: BackgroundPool | BackgroundSource | None = None,
    background_labels: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    max_batches: int | None = None,
    name: str | None = None,
    progress: Callable[..., Iterable[Any]] | None = None,
    **options: Unpack[EvaluationOptions],
) -> BackgroundBiasReport:
    """Measure how much a classifier relies on the background.

    Every image is classified as it is and in the variants of Noise or Signal (``data.make_variant``), on backgrounds of
    the loader's other images, gathered in a first pass, or of ``backgrounds``; which one an image gets depends on
    ``seed`` and the image alone. The model and global random states are left as they were.

    Args:
        model: any module whose output holds logits (B, K), K > 1, or one logit an image where labels are 0 and 1 (else
            with ``task="binary"``), or one a label, with ``task="multilabel"``.
        loader: batches with images (B, C, H, W) float, labels and masks; iterated twice (once with ``backgrounds``), so
            a generator will not do. It should yield the same images each time: no random augmentation.
        settings: all options in one object; the default one when ``None``.
        backgrounds: a pool (N, C, Hb, Wb), uint8 (normalised with ``mean`` and ``std``) or float in the images' units,
            or an object with ``images`` and ``labels``, such as a ``BackgroundBank``. They must hold no foregrounds.
        background_labels: (N,) classes of the pool as the images' labels number them, (N, L) for label sets; without
            them a bank's own by the names of its categories, and of a tensor only mixed_rand.
        class_names: K names; the data set's ``classes`` when it has K of them, else numbers.
        device: where to evaluate; the model must be there already. By default where its parameters are.
        max_batches: measure so many batches, spread over the data set and its classes where it has a length.
        name: of the model in the report; its class's name when ``None``.
        progress: ``progress(batches, total=..., label=...)`` wraps the passes over the loader.
        **options: fields of `torch_bgdebias.probe.EvaluationSettings`, such as ``spec``, ``variants``, ``mean``
            and ``std``, ``seed``, ``attributions``; they go before those of ``settings``.

    Raises:
        KeyError: a batch lacks what ``spec`` names (no masks, for instance).
        TypeError, ValueError: what does not fit, by name: labels without an output, logits not finite, no batch, a
            model that has the data's classes in another order.

    Example:
        >>> batch = (torch.rand(8, 3, 8, 8), torch.arange(8) % 2, torch.zeros(8, 1, 8, 8))
        >>> batch[2][:, :, 2:5, 2:5] = 1
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        >>> report = evaluate_background_bias(model, [batch], variants=["mixed_same", "mixed_rand"])
        >>> len(report.images), list(report.variants)
        (8, ['original', 'mixed_same', 'mixed_rand'])
    """
    _refuse_unknown(options)
    check_count(1 if max_batches is None else max_batches, name="max_batches")
    overrides: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    effective = dataclasses.replace(EvaluationSettings() if settings is None else settings, **overrides)
    files = known_files(loader) if effective.ids is None else None
    share = Share(loader, effective.spec, max_batches=max_batches, in_order=files is not None).need_order(effective)
    effective = effective if files is None else dataclasses.replace(effective, ids=files)
    if class_names is None and effective.logits is None:
        require_same_order(model, known_names(None, loader))
    evaluation = Evaluation(model, effective, device=device)
    for message in (no_embedding := evaluation.run.no_embedding, unshown_void(loader)):
        if message:
            warnings.warn(message, stacklevel=2)

    def walk(label: str) -> Iterable[Any]:
        return share if progress is None else progress(share, total=len(share), label=label)

    with rng_untouched(), eval_mode(model), torch.no_grad():
        pool = None
        if backgrounds is not None:
            pool = pool_for(backgrounds, background_labels, effective, known_names(class_names, loader))
        elif effective.mixed and effective.ready is None:
            pool = evaluation.gather(walk("backgrounds")).pool()
        collected = joined([evaluation.collect(walk("images"), pool)])
    classes = len(np.unique(collected.images.label))
    messages = [message for message in warnings_of(collected, effective) if message != no_embedding]
    names = names_of_classes(class_names, loader, collected.num_classes)
    messages.append(collected.doubt or _one_answer(collected) or _in_other_order(collected, names))
    messages.append(_shared_ids(collected, effective))
    one_class = collected.images.targets is None and collected.images.labelled
    messages += [_other_classes(class_names, loader, collected.num_classes)] * one_class
    if max_batches is not None and not share.spread and one_class and classes < collected.num_classes:
        messages.append(
            f"max_batches: the loader's first {max_batches} batches hold {classes} of the model's "
            f"{collected.num_classes} classes, and a loader of this kind cannot be spread over its data set: shuffle it"
        )
    recorded = {"device": str(evaluation.device), "max_batches": max_batches, "own_backgrounds": backgrounds is None}
    if changing := changing_images(collected, pool, files):
        messages.append(changing)
        recorded["changing_images"] = True
    for message in filter(None, messages):
        warnings.warn(message, stacklevel=2)
    return report_of(
        collected,
        effective,
        pool,
        model=type(model).__name__ if name is None else name,
        class_names=names,
        recorded=recorded,
    )


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    fields = [field.name for field in dataclasses.fields(EvaluationSettings) if field.init]
    accepted = {*inspect.signature(evaluate_background_bias).parameters, *fields} - {"options"}
    for name in options:
        if name not in accepted:
            close_matches = difflib.get_close_matches(name, accepted, 1)
            hint = f"; did you mean {close_matches[0]}=?" if close_matches else ""
            raise TypeError(f"evaluate_background_bias() got an unexpected keyword argument {name!r}{hint}")


def report_of(
    collected: Collected,
    settings: EvaluationSettings,
    pool: BackgroundPool | None,
    *,
    model: str,
    class_names: Sequence[str],
    recorded: Mapping[str, Any],
) -> BackgroundBiasReport:
    """The report of what was collected.

    Args:
        collected: over all images.
        settings: how it was measured.
        pool: the backgrounds.
        model: the model's name.
        class_names: K names.
        recorded: further settings to keep.
    """
    outputs = "probabilities" if collected.probabilities else "logits"
    return summarise(
        collected.images,
        model=model,
        class_names=class_names,
        confidence=settings.confidence,
        counts=collected.counts(settings, pool),
        settings={
            **settings.described(),
            "labels": _kind_of_labels(collected, settings),
            "embedding_layer": collected.layer,
            "outputs": outputs,
            "object_share": collected.object_share,
            "object_edge_share": collected.object_edge_share,
            **recorded,
        },
        examples=collected.examples.examples(),
    )


def warnings_of(collected: Collected, settings: EvaluationSettings) -> list[str]:
    """The warnings that readers of the numbers need."""
    messages = [collected.no_embedding] if collected.no_embedding else []
    if collected.probabilities:
        messages.append(_SIGMOID if settings.task != "multiclass" else _SOFTMAX)
    if collected.sigmoids:
        messages.append(_SIGMOIDS)
    if (collected.in_unit or collected.in_per_cent) and len(collected.images) >= _MANY:
        text = _SHARES if settings.task == "multiclass" else _SHARES_OF_YES
        messages.append(text.format(whole=1 if collected.in_unit else 100))
    if collected.soft:
        messages.append(
            "label: shares of classes are scored by the largest one: a prediction is right or wrong, however large the "
            "share was"
        )
    messages += [_no_gap(collected, settings), _repeated_pictures(collected, settings)]
    messages += [
        _faint_masks(collected),
        _masks_of_others(collected),
        _pictures_under_two_labels(collected),
        _two_masks(collected),
    ]
    return [message for message in messages if message]


def _repeated_pictures(collected: Collected, settings: EvaluationSettings) -> str:
    """A warning where many images are others once more, which no interval knows; empty where few are."""
    if isinstance(settings.ids, int | str) or settings.unit is not None:
        return ""
    different = len(np.unique(np.stack([collected.images.id, collected.images.label.astype(np.uint64)]), axis=1).T)
    repeated = len(collected.images) - different
    if repeated <= _REPEATED * len(collected.images):
        return ""
    return (
        f"image: {repeated} of {len(collected.images)} images are another one once more (picture, mask and label), as "
        "where a sampler draws with replacement: intervals take them for independent and are too narrow; measure each "
        "image once, or say what belongs together by unit="
    )


def _faint_masks(collected: Collected) -> str:
    """A warning about masks that reach white nowhere; empty for any other."""
    if not 0 < collected.mask_peak < _FAINT:
        return ""
    return (
        f"mask: the largest value of all masks is {collected.mask_peak:.2g}, where that of an object's inside is 1: "
        "label numbers or levels of grey divided by 255? Objects are blended with the background by it, or "
        "not there at all; mask > 0 makes objects of labels"
    )


def _masks_of_others(collected: Collected) -> str:
    """A warning about masks whose edges fit other images as well as their own; empty for any other."""
    fits = collected.fits[np.isfinite(collected.fits)]
    spread = float(fits.std(ddof=1)) if len(fits) >= _ENOUGH_MASKS else 0.0
    # of masks with a wide margin the own one's edges fit worse: those of others cross the object
    if spread == 0 or abs(float(fits.mean())) >= _FITTING * spread / len(fits) ** 0.5:
        return ""
    return (
        f"mask: of {len(fits)} images the masks' edges lie on edges of their own pictures no more than those of other "
        "images' masks do: are they masks of other pictures (names that are shifted by one, another order), of another "
        "crop, or turned otherwise? Look at some of them"
    )


def _pictures_under_two_labels(collected: Collected) -> str:
    """A warning about pictures that are there under two labels; empty where hardly any is."""
    if collected.images.targets is not None or not collected.images.labelled:
        return ""
    twice = collected.twins.under_two_labels()
    if twice <= _REPEATED * len(collected.images):
        return ""
    return (
        f"image: {twice} of {len(collected.images)} images show a picture that is there with another label too: no "
        "answer is right for both, and a background of another class may be an image's own; keep each in one class"
    )


def _two_masks(collected: Collected) -> str:
    """A warning about pictures that are there under two masks; empty where hardly any is."""
    twice = collected.twins.under_two_masks()
    if twice <= _REPEATED * len(collected.images):
        return ""
    return (
        f"mask: {twice} of {len(collected.images)} images show a picture that is there with another mask too: what one "
        "of its masks leaves out stays in the background that is made of it, and an image may stand on its own; join "
        "the masks of a picture, or measure it once"
    )


def _other_classes(class_names: Sequence[str] | None, loader: Any, count: int) -> str:
    """A warning about a data set with more or fewer classes than the model has outputs; empty otherwise."""
    names = known_names(None, loader) if class_names is None else []
    if not names or len(names) == count:
        return ""
    return (
        f"class_names: the data set has {len(names)} classes ({', '.join(names[:4])}, ...) and the model {count} "
        "outputs, so that label 0 counts as output 0 and so on; if that is right pass class_names= for all outputs, "
        "else map the labels (target_transform), or sum outputs up (logits=Superclasses(...))"
    )


def changing_images(collected: Collected, pool: BackgroundPool | None, files: KnownFiles | None = None) -> str:
    """A warning where the second pass over a loader brought other images than the first; empty where it did not."""
    if pool is None:
        return ""
    share = pool.met_again(collected.images.label, collected.images.id)
    share = share if files is None else min(share, files.share_unchanged)
    if share >= _MET:
        return ""
    return (
        f"loader: only {share:.0%} of the images of its first pass came again in the second, so it changes them at "
        "random (crops, flips, noise, drawing with replacement): an image may then stand on its own background, and no "
        "report of another model can be compared with this one; give a loader as for validation"
    )


def _no_gap(collected: Collected, settings: EvaluationSettings) -> str:
    """Why there is no BG-Gap although its variants were asked for; empty where there is one."""
    images, gap_variants = collected.images, ("mixed_same", "mixed_rand")
    if not images.labelled or not set(gap_variants) <= set(settings.mixed):
        return ""
    if bool((images.valid(gap_variants[0]) & images.valid(gap_variants[1])).any()):
        return ""
    if collected.without_foreground == len(images):
        reason = f"all {len(images)} masks are empty"
    elif not len(images) or collected.object_edge_share > _INVERTED:
        reason = "what the masks call object covers the pictures' edges and leaves no background: are they inverted?"
    elif images.targets is None and len(np.unique(images.label)) == 1 and images.valid(gap_variants[0]).any():
        reason = f"the images are all of class {int(images.label[0])}, and so are all backgrounds: bring others"
    else:
        counts = [int((~images.valid(name)).sum()) for name in gap_variants]
        reason = (
            f"of {len(images)} images {counts[0]} have no background of their own class and {counts[1]} none of a "
            "random class: bring more images a class, or backgrounds="
        )
    return f"BG-Gap: it is not known, since no image stands on both kinds of background; {reason}"


def _one_answer(collected: Collected) -> str:
    """A warning about a model that answers all images alike, whose figures show nothing; empty for any other."""
    images = collected.images
    predictions = np.unique(images.prediction["original"])
    if images.targets is not None or not images.labelled or len(images) < _MANY:
        return ""
    if len(predictions) > 1 or len(np.unique(images.label)) < 2:
        return ""
    return (
        f"model output: class {int(predictions[0])} for all {len(images)} images, whatever their label: it is not "
        "trained, or by too few batches for the running statistics of its batch norms, or they are not prepared as in "
        "its training, which is what preprocess= is for"
    )


def _in_other_order(collected: Collected, class_names: Sequence[str]) -> str:
    """What to say of answers that go with the labels as other classes do; empty for any other."""
    order = other_order(collected.images, class_names)
    return "" if order is None else f"model output: {order.what}: {order.remedy}"


def _shared_ids(collected: Collected, settings: EvaluationSettings) -> str:
    """A warning about ids that several images have; empty where none has, or the batches bring no ids."""
    images = collected.images
    _, counts = np.unique(np.stack([images.id, images.label.astype(np.uint64)]), axis=1, return_counts=True)
    shared = int(counts[counts > 1].sum())
    if not isinstance(settings.ids, int | str) or not shared:
        return ""
    return (
        f"ids: {shared} of {len(images)} images have an id that another image of their class has; a "
        "comparison with another model pairs them in their order: ids tell every image from the others"
    )


def _kind_of_labels(collected: Collected, settings: EvaluationSettings) -> str:
    if not collected.images.labelled:
        return "none"
    if settings.task == "multilabel":
        return "sets, each label right or wrong by itself"
    return "the largest share of several classes" if collected.soft else "one class an image"
