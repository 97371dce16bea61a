"""``certify_backgrounds``: a lower bound on the share of objects classified correctly on a source's backgrounds."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from torch_bgdebias.backgrounds.pool import BackgroundSource
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_count
from torch_bgdebias.class_names import names_of_classes
from torch_bgdebias.metrics.certificate import AccuracyCertificate, certified_accuracy
from torch_bgdebias.models import LogitsKey, device_of, eval_mode
from torch_bgdebias.probe.page.certificate import certificate_section
from torch_bgdebias.probe.page.render import page_html
from torch_bgdebias.probe.passes.drawing import DrawnAnswers, answers_on_draws
from torch_bgdebias.probe.passes.gathering import BackgroundPool, pool_for
from torch_bgdebias.probe.passes.grouping import GroupSource
from torch_bgdebias.probe.passes.identity import KnownFiles
from torch_bgdebias.probe.passes.loading import Share, known_files, rng_untouched, unshown_void
from torch_bgdebias.probe.passes.settings import EvaluationSettings, Task
from torch_bgdebias.probe.results.measurement import versions_in_use
from torch_bgdebias.writing import write_text

__all__ = ["CERTIFICATE_SCHEMA", "BackgroundCertificate", "CertificateOptions", "certify_backgrounds"]

#: name and version of the layout of `BackgroundCertificate.to_dict`
CERTIFICATE_SCHEMA = "torch_bgdebias.certificate/1"


class CertificateOptions(TypedDict, total=False):
    """The fields of `EvaluationSettings` that a certificate has a use for."""

    spec: BatchSpec
    task: Task
    num_classes: int | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    preprocess: Callable[[Tensor], Tensor] | None
    seed: int
    forward: Callable[[nn.Module, Tensor], Any] | None
    logits: LogitsKey
    ids: int | str | KnownFiles | None
    unit: GroupSource | None
    confidence: float


@dataclasses.dataclass(frozen=True)
class BackgroundCertificate:
    """A certificate: what is guaranteed, for which objects and which backgrounds.

    Attributes:
        model: its name.
        source: where the backgrounds come from, in words.
        n_backgrounds: how many there are.
        once: whether each was used for one draw at most, so that what is certified is about whatever they are a sample
            of; else it is about these pictures.
        certified: of all objects.
        per_class: by class, at levels of which all hold at once (Bonferroni).
        right_on: (M + 1,) how many objects are right on 0, 1, ..., M of their backgrounds.
        counts: ``objects``, ``units`` where objects belong together, and what was left out, by reason.
        settings: of the measurement.
        versions: of torch_bgdebias, torch, Python and numpy.
    """

    model: str
    source: str
    n_backgrounds: int
    once: bool
    certified: AccuracyCertificate
    per_class: dict[str, AccuracyCertificate]
    right_on: list[int]
    counts: dict[str, int]
    settings: dict[str, Any]
    versions: dict[str, str]

    def sentence(self) -> str:
        """The guarantee in one sentence."""
        c = self.certified
        objects = "objects" if "units" not in self.counts else "objects of a group drawn at random"
        return (
            f"With {100 * c.confidence:g} % confidence at least {_floor(c.at_least)} % of {objects} are classified "
            f"right by {self.model} on a background drawn from {self.source}."
        )

    def covers(self) -> list[str]:
        """The scope of the guarantee: its distribution, how that was sampled, and what it excludes."""
        c = self.certified
        if self.once:
            backgrounds = (
                f"Backgrounds: {self.n_backgrounds} pictures of {self.source}, none used twice, so it is about the "
                "source that they are a random sample of."
            )
        else:
            backgrounds = (
                f"Backgrounds: the {self.n_backgrounds} pictures of {self.source}, drawn anew for each object, all "
                "with the same chance. It is about these pictures, not about others of their kind."
            )
        units = "groups" if "units" in self.counts else "objects"
        return [
            f"Objects: whatever the {c.objects} {units} measured are a random sample of, cut out by their masks and "
            "put in their own place and size.",
            backgrounds,
            f"Two stages: {c.objects} {units} were drawn, and {c.backgrounds} background(s) for each object. Answers "
            f"about one object are not independent, so the sample is the {c.objects} {units}, not all the "
            "answers.",
            f"From each object's first background alone (Clopper and Pearson): at least "
            f"{_floor(c.one_background_at_least)} %. This bound is proven; of the other one, which uses all "
            "backgrounds, no case is known in which it fails, and it is the same with one background an object.",
            "It covers nothing else: no other objects, no other backgrounds, no other way of putting the two together, "
            "no pictures as a camera takes them, and nothing about why the model answers as it does.",
        ]

    def summary(self) -> str:
        """The guarantee, its figures and its scope, as text."""
        c = self.certified
        count_words = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in self.counts.items())
        always, never = self.right_on[-1], self.right_on[0]
        lines = [
            self.sentence(),
            f"  measured: {100 * c.accuracy:.1f} % right ({count_words}; {always} right on all, {never} on none of "
            f"their {c.backgrounds} background(s))",
        ]
        if worst := min(self.per_class.items(), key=lambda item: item[1].at_least, default=None):
            name, of_class = worst
            lines.append(
                f"  least certain class: {name}, at least {_floor(of_class.at_least)} % (all classes at once; "
                f"{of_class.objects} objects, {100 * of_class.accuracy:.1f} % right)"
            )
        return "\n".join(lines + [f"  {line}" for line in self.covers()])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, numbers and text, with the schema's name and the sentences."""
        return {
            "schema": CERTIFICATE_SCHEMA,
            "sentence": self.sentence(),
            "covers": self.covers(),
            **dataclasses.asdict(self),
        }

    def to_json(self, path: str | Path) -> None:
        """Write `to_dict` as strict JSON."""
        write_text(path, json.dumps(self.to_dict(), allow_nan=False, indent=1))

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page."""
        title = f"Certificate: {self.model}"
        section = certificate_section(title, self.sentence(), self.covers(), self.certified, self.per_class,
                                      self.right_on, self.counts, self.settings | self.versions)  # fmt: skip
        write_text(path, page_html(title, [section]))
        return Path(path)


def certify_backgrounds(
    model: nn.Module,
    loader: Iterable[Any],
    backgrounds: BackgroundPool | BackgroundSource,
    *,
    source: str,
    per_object: int = 8,
    once: bool = False,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    progress: Callable[..., Iterable[Any]] | None = None,
    **options: Unpack[CertificateOptions],
) -> BackgroundCertificate:
    """A lower bound on the share of objects that a classifier gets right on backgrounds drawn from a source.

    Every object is pasted on ``per_object`` backgrounds, drawn for it anew. The objects must be a random sample of
    those that the certificate shall be about, and must not have been used to train or to choose the model; nor must
    the backgrounds. The model is in evaluation mode without gradients meanwhile and left as it was.

    Args:
        model: as for `torch_bgdebias.probe.evaluate_background_bias`.
        loader: batches with images, labels and masks; iterated once.
        backgrounds: the source's pictures without foregrounds, as there: a bank, a pool, or images (N, C, Hb, Wb).
        source: what they are, in words that end a sentence.
        per_object: backgrounds for each object, at least 1. More make the bound tighter where objects are alike.
        once: use no background twice, so that the certificate is about the source that they were sampled from; needs
            ``per_object`` backgrounds for each object.
        class_names: K names; the data set's ``classes`` when it has K of them, else numbers.
        name: of the model; its class's name when ``None``.
        progress: ``progress(batches, total=..., label=...)`` wraps the pass over the loader.
        **options: fields of `torch_bgdebias.probe.EvaluationSettings`: ``spec``, ``mean`` and ``std``,
            ``seed``, ``unit`` (what objects belong together), ``confidence`` and the like.

    Raises:
        KeyError: a batch lacks what ``spec`` names.
        ValueError: no labels, label sets, too few backgrounds for ``once``, or no object.

    Source: see `torch_bgdebias.metrics.certified_accuracy`.
    """
    check_count(per_object, name="per_object")
    settings = EvaluationSettings(variants=("mixed_rand",), embeddings=False, **options)
    if settings.spec.label is None or settings.task == "multilabel":
        received = "no labels" if settings.spec.label is None else "task='multilabel'"
        raise ValueError(f"certify_backgrounds: expected one class an image, which is right or wrong, got {received}")
    device = device_of(model, "cpu")
    files = known_files(loader) if settings.ids is None else None
    share = Share(loader, settings.spec, in_order=files is not None).need_order(settings)
    settings = settings if files is None else dataclasses.replace(settings, ids=files)
    if message := unshown_void(loader):
        warnings.warn(message, stacklevel=2)
    pool = pool_for(backgrounds, None, settings)
    if not len(pool):
        raise ValueError("backgrounds: expected at least one, got none")
    if once and pool.restricted:
        raise ValueError("once: expected backgrounds that every class may have, got lists of forbidden ones")
    batches = share if progress is None else progress(share, total=len(share), label="images")
    with rng_untouched(), eval_mode(model), torch.no_grad():
        answers = answers_on_draws(model, batches, pool, settings, device=device, per_object=per_object, once=once)
    if answers.doubt:
        warnings.warn(answers.doubt, stacklevel=2)
    names = names_of_classes(class_names, loader, answers.num_classes)
    recorded = {"seed": settings.seed, "device": str(device), "mean": settings.mean, "std": settings.std,
              "task": settings.task}  # fmt: skip
    return BackgroundCertificate(
        model=type(model).__name__ if name is None else name,
        source=source,
        n_backgrounds=len(pool),
        once=once,
        certified=certified_accuracy(answers.right, groups=answers.unit, confidence=settings.confidence),
        per_class=_per_class(answers, names, settings.confidence),
        right_on=np.bincount(answers.right.sum(1), minlength=per_object + 1).tolist(),
        counts=_counts(answers),
        settings={key: list(value) if isinstance(value, tuple) else value for key, value in recorded.items()},
        versions=versions_in_use(),
    )


def _per_class(answers: DrawnAnswers, names: Sequence[str], confidence: float) -> dict[str, AccuracyCertificate]:
    """Each class at the level 1 - alpha / classes, so that all hold at once."""
    labels = np.unique(answers.label)
    level = 1 - (1 - confidence) / len(labels)
    rows = {names[label]: answers.label == label for label in labels.tolist()}
    return {
        name: certified_accuracy(
            answers.right[in_class], groups=None if answers.unit is None else answers.unit[in_class], confidence=level
        )
        for name, in_class in rows.items()
    }


def _counts(answers: DrawnAnswers) -> dict[str, int]:
    counts = {"objects": len(answers.right)}
    if answers.unit is not None:
        counts["units"] = len(np.unique(answers.unit))
    left_out = {"without_foreground": answers.without_foreground, "without_background": answers.without_background}
    return counts | {reason: number for reason, number in left_out.items() if number}


def _floor(share: float) -> str:
    """Percent with one decimal, rounded down as a lower bound must be."""
    return f"{math.floor(round(1000 * share, 6)) / 10:.1f}"
