"""``EvaluationSettings``: all options of a measurement, validated once and passed as one object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from torch import Tensor, nn

from torch_bgdebias._deprecated import warn_of_resampling
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_both_or_none, check_confidence, check_count, check_option
from torch_bgdebias.models import LogitsKey
from torch_bgdebias.names import MIXED_VARIANTS, VARIANTS
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe.passes.attributions import Attribution, named_attributions
from torch_bgdebias.probe.passes.grouping import GroupSource, group_sources
from torch_bgdebias.probe.passes.identity import KnownFiles
from torch_bgdebias.probe.passes.outputs import TASKS, logits_for

__all__ = ["EvaluationOptions", "EvaluationSettings", "ImageScore", "MeasuringOptions", "Task", "ratio_name"]

#: a further score per image: (model, image, mask, label) -> (B,) float, NaN where it is undefined
ImageScore: TypeAlias = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
#: ``multiclass``: one logit a class, one class an image; ``binary``: one logit, above 0 for class 1; ``multilabel``: a
#: logit a label, above 0 where the image has it
Task: TypeAlias = Literal["multiclass", "binary", "multilabel"]
#: with more classes than this, log odds are kept only on demand: a number for every image, class and variant
_FEW_CLASSES = 20


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How a model is measured, for any model and data.

    Args:
        spec: where image, label and mask are in a batch.
        variants: names from ``data.VARIANTS`` (``"original"`` is always measured); all that the labels allow when
            ``None``. BG-Gap needs mixed_same and mixed_rand. Label sets have no mixed_next; without labels there is no
            mixed_same either.
        task: ``"multiclass"``; ``"binary"`` for models with one logit, of which class 1 is predicted above 0;
            ``"multilabel"`` for labels (B, L) of 0 and 1, each predicted above 0. Shares of classes (B, K) are read as
            their largest class.
        num_classes: K, checked against the model's output when given.
        mean: per channel, that the images were normalised with: makes black black in only_fg, only_bg_b and no_fg,
            colours right in examples, and lets images be recognised in a measurement with another normalisation.
        std: per channel; required with ``mean``.
        preprocess: a function or a ``Preprocessing``, applied to images (B, C, H, W) right before the model: variants
            are made of the images as the loader yields them, and the model sees what it saw in training. ``None``: the
            loader yields what the model wants.
        seed: of the choice of backgrounds.
        forward: ``forward(model, image)`` for models that want more than ``model(image)``.
        logits: where the logits are in the output: index, key, attribute or function; by itself when ``None``.
        layer: name of the layer whose **input** is the embedding; the last linear layer when ``None``. Where
            there is no such layer, or several, feature consistency is left out with a warning.
        embeddings: read embeddings (feature consistency); off saves the hook.
        scores: further per-image scores of the original images by name.
        attributions: names (``grad_cam``, ``kernel_shap``, ``lrp``, or ``isnet`` for an ``ISNet``), or functions
            (model, image, target (B,)) -> (B, 1, H, W) by name. Each adds the score ``pixel_ratio/<name>`` and a
            heatmap to every example.
        explain: the class that attributions explain, ``"predicted"`` or ``"label"``.
        ready: index or key of a dict in the batch that holds the variants ready made, each as images (B, C, H, W) or as
            (images, background labels (B,), which are there (B,) bool), such as ``data.ImageNet9Variants`` yields;
            ``None`` makes them here.
        ids: index or key of names or numbers in the batch by which images are known in other measurements. ``None``: by
            what the data set's ``image_id(index)`` says, where it has one (the package's folders: their files'
            contents, as in ``bgdebias probe``), else by picture, mask and label.
        groups: what groups the images (site, camera, sex), for the worst group: by name a place in the batch, or a
            list of N names in the order of the data set (`groups_from_csv`, `groups_from_folders`).
        unit: what images belong together and are not independent (a patient, a film), given as a group is; intervals
            and tests then count these and not images.
        probabilities: keep every image's log odds of each class, for AUC and calibration; ``None``: up to 20 classes.
        max_backgrounds: backgrounds kept in host memory, in the images' dtype (512 of 3 x 224 x 224 take 0.3 GB); at
            least two a class are kept whatever the limit.
        examples: how many of the images that a new background hurt most to keep as pictures, with their heatmaps.
        confidence: of the intervals.
        n_resamples: without effect: intervals are computed, not drawn. Goes in the next release.
        recorded: further settings to keep in the report, such as the size of a bank that a score uses; models are
            compared only where these agree.

    Raises:
        ValueError: an option that does not exist, or a number out of range.
    """

    spec: BatchSpec = dataclasses.field(default_factory=BatchSpec)
    variants: Sequence[str] | None = None
    task: Task = "multiclass"
    num_classes: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    preprocess: Callable[[Tensor], Tensor] | None = None
    seed: int = 0
    forward: Callable[[nn.Module, Tensor], Any] | None = None
    logits: LogitsKey = None
    layer: str | None = None
    embeddings: bool = True
    scores: Mapping[str, ImageScore] = dataclasses.field(default_factory=dict)
    attributions: Sequence[str] | Mapping[str, Attribution] = ()
    explain: str = "predicted"
    ready: int | str | None = None
    ids: int | str | KnownFiles | None = None
    groups: Mapping[str, GroupSource] | GroupSource | None = None
    unit: GroupSource | None = None
    probabilities: bool | None = None
    max_backgrounds: int = 512
    examples: int = 0
    confidence: float = 0.95
    n_resamples: int | None = None
    recorded: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.variants is not None and "original" in self.variants:  # it is measured whatever else is
            object.__setattr__(self, "variants", tuple(name for name in self.variants if name != "original"))
        for variant in self.variants or ():
            check_option(variant, VARIANTS, name="variants")
        if self.spec.mask is None:
            raise ValueError("mask: expected foreground masks in every batch; pass BatchSpec(mask=...) saying where")
        check_count(self.seed, name="seed", least=0)
        check_both_or_none(self.mean, self.std)
        check_option(self.explain, ("predicted", "label"), name="explain")
        check_option(self.task, TASKS, name="task")
        self._check_labels_allow()
        self.group_sources  # noqa: B018 - raises where a group is no place and no list
        check_count(self.max_backgrounds, name="max_backgrounds", least=2)
        check_count(self.examples, name="examples", least=0)
        if self.n_resamples is not None:
            warn_of_resampling("EvaluationSettings(n_resamples=...)")
        check_confidence(self.confidence)
        if twice := [name for name in self.attribution_functions if ratio_name(name) in self.scores]:
            raise ValueError(f"scores: {ratio_name(twice[0])!r} is what attributions measure; give it one name only")

    def _check_labels_allow(self) -> None:
        """Refuse by name what needs one class an image where there are label sets or no labels."""
        for variant in self.variants or ():
            if variant in self._without_class:
                reason = "images have no label (BatchSpec(label=None))"
                if self.task == "multilabel":
                    reason = "an image of task='multilabel' has no next class"
                raise ValueError(
                    f"variants: expected none that needs one class an image, got {variant!r}, but {reason}"
                )
        if self.explain == "label" and (self.task == "multilabel" or self.spec.label is None):
            reason = "images have no label" if self.spec.label is None else "an image of task='multilabel' has several"
            raise ValueError(f"explain: expected 'predicted', got 'label', but {reason}")
        if self.task == "multilabel" and (self.spec.label is None or self.probabilities is False):
            expected = (
                "label: expected label sets in every batch"
                if self.spec.label is None
                else "probabilities: expected True"
            )
            raise ValueError(f"{expected} for task='multilabel'")

    @property
    def _without_class(self) -> tuple[str, ...]:
        """Variants that need one class an image, where it has none."""
        if self.spec.label is None:
            return ("mixed_same", "mixed_next")
        return ("mixed_next",) if self.task == "multilabel" else ()

    @property
    def group_sources(self) -> dict[str, GroupSource]:
        """What groups the images, by name."""
        return group_sources(self.groups)

    def keeps_log_odds(self, num_classes: int) -> bool:
        """Whether the log odds of so many classes are kept."""
        return num_classes <= _FEW_CLASSES if self.probabilities is None else self.probabilities

    @property
    def variant_names(self) -> tuple[str, ...]:
        """The variants to evaluate, each once."""
        possible = [name for name in VARIANTS if name not in self._without_class]
        return tuple(dict.fromkeys(possible if self.variants is None else self.variants))

    @property
    def mixed(self) -> tuple[str, ...]:
        """Those of them that take a background from another image."""
        return tuple(name for name in self.variant_names if name in MIXED_VARIANTS)

    @property
    def attribution_functions(self) -> dict[str, Attribution]:
        """Attributions by name."""
        return named_attributions(self.attributions, logits=logits_for(self.task, self.logits), seed=self.seed)

    def described(self) -> dict[str, Any]:
        """The settings as a report keeps them."""
        attributions = list(self.attribution_functions)
        return {
            "variants": list(self.variant_names),
            "seed": self.seed,
            "mean": None if self.mean is None else [float(x) for x in self.mean],
            "std": None if self.std is None else [float(x) for x in self.std],
            "preprocess": None if self.preprocess is None else _name_of(self.preprocess),
            "task": self.task,
            "batch": dataclasses.asdict(self.spec),
            "scores": list(self.scores),
            "attributions": attributions,
            "explained_class": self.explain if attributions else None,
            "variants_are": "as given" if self.ready is not None else "made here",
            "images_are_known_by": _known_by(self.ids),
            "groups": list(self.group_sources),
            "intervals_count": "images" if self.unit is None else "what belongs together (unit=)",
            "max_backgrounds": self.max_backgrounds,
            **self.recorded,
        }


class MeasuringOptions(TypedDict, total=False):
    """The fields of `EvaluationSettings` as keyword arguments, but ``spec`` and ``seed``."""

    variants: Sequence[str] | None
    task: Task
    num_classes: int | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    preprocess: Callable[[Tensor], Tensor] | None
    forward: Callable[[nn.Module, Tensor], Any] | None
    logits: LogitsKey
    layer: str | None
    embeddings: bool
    scores: Mapping[str, ImageScore] | None
    attributions: Sequence[str] | Mapping[str, Attribution]
    explain: str
    ready: int | str | None
    ids: int | str | KnownFiles | None
    groups: Mapping[str, GroupSource] | GroupSource | None
    unit: GroupSource | None
    probabilities: bool | None
    max_backgrounds: int
    examples: int
    confidence: float
    n_resamples: int | None
    recorded: Mapping[str, Any]


class EvaluationOptions(MeasuringOptions, total=False):
    """The fields of `EvaluationSettings` as keyword arguments; ``None`` leaves a field as it is."""

    spec: BatchSpec | None
    seed: int


def ratio_name(attribution: str) -> str:
    """What the pixel ratio of an attribution is called."""
    return f"pixel_ratio/{attribution}"


def _known_by(ids: int | str | KnownFiles | None) -> str:
    if isinstance(ids, KnownFiles):
        return "what the data set says of them (their files' contents)"
    return "picture, mask and label" if ids is None else f"the batch's {ids!r}"


def _name_of(function: Callable[..., Any]) -> str:
    if isinstance(function, Preprocessing):
        return function.describe()
    name = getattr(function, "__qualname__", None)
    return str(name) if name is not None else " ".join(repr(function).split())
