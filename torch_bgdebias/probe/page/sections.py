"""The parts of the HTML report, each a function from results to markup. Everything taken from results is escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from torch_bgdebias.probe.page import charts
from torch_bgdebias.probe.page.charts import interval_of, is_known
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport, Estimate

__all__ = ["OBJECTLESS", "VARIANTS", "accuracy", "confidence", "section"]

#: what each variant shows; the order of the report
VARIANTS = {
    "original": "as given",
    "only_fg": "object alone",
    "mixed_same": "own class's backgrounds",
    "mixed_rand": "random backgrounds",
    "mixed_next": "next class's backgrounds",
    "no_fg": "object cut out",
    "only_bg_b": "background, box blacked out",
    "only_bg_t": "background, object tiled over",
}
#: variants without the object: what is right here was read off the background
OBJECTLESS = ("no_fg", "only_bg_b", "only_bg_t")


def header(title: str, reports: Sequence[BackgroundBiasReport]) -> str:
    """Title and what was measured."""
    counts = reports[0].counts
    told = [f"{counts[key]:,} {word}" for key, word in _COUNTED.items() if counts.get(key)]
    models = ", ".join(r.model for r in reports)
    return f"<h1>{escape(title)}</h1>\n<p class='lead'>{escape(' · '.join([*told, models]))}</p>"


_COUNTED = {"images": "test images", "classes": "classes", "backgrounds": "test backgrounds"}


def key(names: Sequence[str]) -> str:
    """Which colour is which model."""
    items = "".join(f"<li><i class='k{i % 6}'></i>{escape(n)}</li>" for i, n in enumerate(names))
    return f"<ul class='key'>{items}</ul>" if len(names) > 1 else ""


def variants(reports: Sequence[BackgroundBiasReport]) -> str:
    """Bars of the accuracy per variant, and the gaps on one scale."""
    names = [r.model for r in reports]
    present = [v for v in VARIANTS if any(v in r.variants for r in reports)]
    series = {_unique(names, i): [accuracy(r, v) for v in present] for i, r in enumerate(reports)}
    parts = []
    if any(is_known(r.bg_gap) for r in reports):
        chart = charts.intervals([(r.model, r.bg_gap) for r in reports], label="BG-Gap per model, in points")
        parts.append(
            section(
                "Accuracy lost to the background",
                "<p class='note'>BG-Gap in points of accuracy<sup><a href='#f1'>1</a></sup>: 0 means that it does not "
                f"matter what is behind the object. The bar is the {_level(reports)} interval.</p>"
                f"<div class='chart'>{chart}</div>",
                anchor="gap",
            )
        )
    chart = charts.bars([VARIANTS[v] for v in present], series, label="accuracy per variant and model")
    told = "The same test objects, shown in different ways.<sup><a href='#f2'>2</a></sup>"
    if any(v in OBJECTLESS for v in present):
        told += " Where the object is gone, accuracy above chance was read off the background: lower is better there."
    parts.append(
        section(
            "Accuracy by what is shown",
            f"<p class='note'>{told}</p>{key(names)}<div class='chart'>{chart}</div>",
            anchor="variants",
        )
    )
    return "\n".join(parts)


def curves(panels: Mapping[str, Mapping[str, Sequence[float]]], reports: Sequence[BackgroundBiasReport]) -> str:
    """Small charts side by side, one per quantity, over the epochs of training."""
    colours = {r.model: i for i, r in enumerate(reports)}
    for series in panels.values():
        for name in series:
            colours.setdefault(name, len(colours))
    drawn = []
    for title, series in panels.items():
        unit = "" if any(v > 1 for values in series.values() for v in values if math.isfinite(v)) else "%"
        unit = "" if "loss" in title.lower() else unit
        drawn.append(
            f"<div><h3>{escape(title)}</h3>{charts.lines(series, label=title, unit=unit, colours=colours)}</div>"
        )
    shown = [name for name in colours if any(name in series for series in panels.values())]
    items = "".join(f"<li><i class='k{colours[n] % 6}'></i>{escape(n)}</li>" for n in shown)
    body = f"<ul class='key'>{items}</ul><div class='panels'>{''.join(drawn)}</div>"
    return section("During training", body, anchor="curves")


def scores(reports: Sequence[BackgroundBiasReport]) -> str:
    """Distribution and mean of further scores per image, such as the pixel ratio of an attribution."""
    names = list(dict.fromkeys(name for r in reports for name in r.scores))
    drawn = []
    for name in names:
        having = [(i, r) for i, r in enumerate(reports) if name in r.scores]
        values = {_unique([x.model for x in reports], i): r.images.scores.get(name, ()) for i, r in having}
        series = {model: [float(v) for v in column] for model, column in values.items()}
        told = "; ".join(_score_line(r, name) for _, r in having)
        chart = charts.histogram(series, label=f"distribution of {name}")
        drawn.append(f"<div><h3>{escape(name)}</h3>{chart}<p class='note'>{escape(told)}</p></div>")
    body = (
        "<p class='note'>Share of test images by score. For a pixel ratio<sup><a href='#f5'>5</a></sup>, 1 means that "
        "all of the evidence lies on the object.</p>"
        f"{key([r.model for r in reports])}<div class='panels'>{''.join(drawn)}</div>"
    )
    return section("Where the model looks", body, anchor="scores")


def settings(reports: Sequence[BackgroundBiasReport], extra: Mapping[str, Any] | None = None) -> str:
    """Every setting, count and version, as they are; what all models share stands once."""
    blocks = [("Run", dict(extra))] if extra else []
    shared = {k: v for k, v in reports[0].settings.items() if all(r.settings.get(k, _ABSENT) == v for r in reports)}
    if shared:
        blocks.append(("Measurement", shared))
    for report in reports:
        own = {k: v for k, v in report.settings.items() if k not in shared}
        if own:
            blocks.append((f"Only {report.model}", own))
    blocks += [("Counts", dict(reports[0].counts)), ("Versions", dict(reports[0].versions))]
    for report in reports[1:]:
        if report.counts != reports[0].counts:
            blocks.append((f"Counts, {report.model}", dict(report.counts)))
        if report.versions != reports[0].versions:
            blocks.append((f"Versions, {report.model}", dict(report.versions)))
    drawn = "".join(f"<div><h3>{escape(name)}</h3>{_list(block)}</div>" for name, block in blocks if block)
    return section("Settings and versions", f"<div class='columns'>{drawn}</div>", anchor="settings")


_ABSENT = object()


def footnotes(reports: Sequence[BackgroundBiasReport]) -> str:
    """What each number means."""
    notes = [
        "<b>BG-Gap</b>: accuracy with each object on a background of its own class, less the accuracy with the same "
        "object on the background of a random class, in points. A classifier that looks at the object alone has 0. "
        "(Xiao, Engstrom, Ilyas, Madry: Noise or Signal, arXiv 2006.09994.)",
        "<b>Variants</b>: each test object is cut out along its mask and put on other test backgrounds (own class, "
        "random class, next class), shown alone on black, or taken away: cut out in black, with its bounding box "
        "blacked out, or covered with the background beside it.",
        "<b>Decisions kept</b>: share of images whose predicted class, right or wrong, stays the same when the "
        "background changes.",
        "<b>Features kept</b>: mean cosine similarity of the embeddings (what enters the last layer) before and after "
        "the change.",
        "<b>Pixel ratio</b>: sum of the positive attribution on the object over the sum of all positive attribution; "
        "images without any are counted apart. (arXiv 2512.05937.)",
        f"<b>Intervals</b> hold {_level(reports)} of the bootstrap's resamples of the test images. A BG-Gap's interval "
        "resamples both of its accuracies together, image by image. They speak of these test images and of these "
        "trained models, not of other training runs.",
        "<b>Changes</b> between models are over the images that both have the figure for. Their intervals resample "
        "images, each with the results of both models; their p-values are of permutation tests in pairs, two-sided, "
        "corrected for their number (Holm): all figures of all models together, and in the class table all classes of "
        "all models together.",
    ]
    items = "".join(f"<li id='f{i}'>{note}</li>" for i, note in enumerate(notes, start=1))
    return section("What the numbers mean", f"<ol class='footnotes'>{items}</ol>", anchor="footnotes")


def accuracy(report: BackgroundBiasReport, variant: str) -> Estimate | None:
    """Accuracy on a variant, if it was measured."""
    return report.variants[variant].accuracy if variant in report.variants else None


def _score_line(report: BackgroundBiasReport, name: str) -> str:
    score = report.scores[name]
    ends = interval_of(score.mean)
    told = f"{report.model}: mean {score.mean.value:.3f}" if is_known(score.mean) else f"{report.model}: not known"
    told += f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    return told + (f", {score.n_undefined} undefined" if score.n_undefined else "")


def _list(block: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{escape(str(k).replace('_', ' '))}</dt><dd>{escape(_plain(v))}</dd>" for k, v in block.items()
    )
    return f"<dl>{items}</dl>"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    return str(value)


def _unique(names: Sequence[str], index: int) -> str:
    """The model's name, numbered when another one before it is called the same."""
    seen = names[:index].count(names[index])
    return f"{names[index]} ({seen + 1})" if seen else names[index]


def _level(reports: Sequence[BackgroundBiasReport]) -> str:
    return f"{100 * confidence(reports):g}%"


def confidence(reports: Sequence[BackgroundBiasReport]) -> float:
    """The level of the intervals, from the settings of the measurement."""
    return float(reports[0].settings.get("confidence", 0.95))


def section(title: str, body: str, *, anchor: str = "") -> str:
    """A titled block of the page."""
    mark = f" id='{anchor}'" if anchor else ""
    return f"<section{mark}><h2>{escape(title)}</h2>{body}</section>"
