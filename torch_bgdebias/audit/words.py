"""Findings in words: how certain, how large, which method of this package applies, and what to check by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_bgdebias.audit.cues import CUES, Cue
from torch_bgdebias.audit.facts import Fact, facts_of
from torch_bgdebias.audit.results import AuditResult, Finding, Reading
from torch_bgdebias.probe.results.advice import How
from torch_bgdebias.probe.results.spelling import Sentence, p_words, plain_text, say, strong

__all__ = ["Advice", "advice_for", "area_words", "same_words", "summary_lines", "title_of", "verdict"]


@dataclass(frozen=True)
class Advice:
    """What to do about a finding.

    Attributes:
        method: of this package, or another remedy.
        check: what to look at by hand.
        how: the instructions that the page gives for it, by name.
    """

    method: str
    check: str
    how: tuple[How, ...] = ()


_SWAP = "BackgroundSwap or CLAD in training, then bgdebias probe"
_BOTH: tuple[How, ...] = ("isnet", "swap")
_BY_CUE = {
    "border": Advice(
        "ISNet, or BackgroundSwap; or crop the border away", "frames, rulers, lettering along the border", _BOTH
    ),
    "corners": Advice(
        "ISNet, or BackgroundSwap; or cover the corners", "marks, stamps and time codes in the corners", _BOTH
    ),
    "places": Advice(
        "ISNet, or BackgroundSwap; or cover the place", "what stands at the place that the map shows", _BOTH
    ),
    "sharpness": Advice(
        "one resolution for all, BackgroundSwap", "whether classes come from other cameras or sizes", ("swap",)
    ),
    "box": Advice(
        "random crops and shifts in training", "whether place and size belong to the object or to its photographer"
    ),
    "size": Advice("resize and crop all pictures alike", "whether classes come from other sources"),
    "compression": Advice(
        "store all pictures anew in one format and quality", "whether classes come from other sources"
    ),
    "exif": Advice("split by camera and date (groups=)", "which cameras and which days each class has"),
    "names": Advice("split by source (groups=)", "whether the name's parts are sites, devices or persons"),
}
_BY_KIND = {
    "background": Advice(_SWAP, "what the backgrounds of the pictures shown share", ("swap",)),
    "source": Advice("split by it (groups=), balance it over the classes", "how often each class has each value"),
    "whole": Advice("none yet: the object may be the reason", "the object's own brightness, size and texture"),
}
_WITHOUT_MASKS = "Make masks first (bgdebias masks), and audit again"
#: kinds in the order in which they are spoken of
_KINDS = {
    "background": "what is not the object",
    "box": "the object's place and size",
    "file": "the file, whatever it shows",
    "source": "where the pictures come from",
    "whole": "the whole picture",
}


def advice_for(cue: Cue, *, masked: bool) -> Advice:
    """The advice for a finding of that cue."""
    advice = _BY_CUE.get(cue.name) or _BY_KIND[cue.kind]
    if not masked and cue.kind == "background":
        return Advice(f"{_WITHOUT_MASKS}; {advice.method}", advice.check, ("masks", *advice.how))
    return advice


def title_of(cue: Cue, *, masked: bool) -> str:
    """The cue in a few words."""
    return cue.unmasked if cue.unmasked and not masked else cue.title


def area_words(reading: Reading) -> str:
    """``0.81 [0.76, 0.85]``."""
    area = reading.area
    ends = f" [{area.low:.2f}, {area.high:.2f}]" if area.low == area.low else ""
    return f"{area.value:.2f}{ends}"


def verdict(report: AuditResult) -> list[Sentence]:
    """What the first screen says."""
    sentences = []
    localised = [f for f in report.findings if f.reading.cue.kind != "whole"]
    if not localised:
        sentences.append(_nothing_found(report))
    for kind, words in _KINDS.items():
        of_kind = [finding for finding in report.findings if finding.reading.cue.kind == kind]
        if of_kind:
            sentences.append(_kind_sentence(report, kind, words, of_kind))
    if not report.masked:
        sentences.append(
            say(
                strong("There are no masks. "),
                "So a ring along the border, the corners and the files were looked at: an object that reaches there is "
                "looked at as well, and what stands further in is not. bgdebias masks makes masks.",
            )
        )
    return sentences


def _nothing_found(report: AuditResult) -> Sentence:
    level = report.settings["level"]
    return say(
        strong("Nothing outside the object tells the classes, as far as simple learners see. "),
        f"{report.tests} tests, corrected together at {100 * level:g} %. It is no proof: a cue in fewer than one "
        "picture in five, or one that these features do not show, may have been missed.",
    )


def _kind_sentence(report: AuditResult, kind: str, words: str, findings: Sequence[Finding]) -> Sentence:
    classes = {finding.reading.label for finding in findings} - {-1}
    best = max(findings, key=lambda finding: finding.reading.area.value).reading
    two_classes = len([count for count in report.counts if count]) == 2
    subject = "The two classes" if two_classes else f"{len(classes)} of {len(report.labels)} classes"
    subject = subject if classes else "All classes together"
    title = title_of(best.cue, masked=report.masked)
    lead = f" Most surely {report.spoken(best.label)}" if not two_classes else " Best"
    text = f": by {title}, AUC {area_words(best)} where chance gives 0.50, {p_words(best.p_value)}."
    tail = " The object may be the reason: look before you act." if kind == "whole" else ""
    return say(strong(f"{subject} can be told by {words}."), lead, text, tail)


def summary_lines(report: AuditResult) -> list[str]:
    """The report for a terminal."""
    looked = sum(report.counts)
    of = f" of {report.total:,}" if report.total not in (None, looked) else ""
    n_classes = sum(count > 0 for count in report.counts)
    lines = [f"{looked:,}{of} pictures, {n_classes} classes, {'with' if report.masked else 'without'} masks"]
    lines += [plain_text(sentence) for sentence in verdict(report)]
    if report.findings:
        lines += ["", f"{'class':<22} {'read off':<44} {'AUC (chance 0.50)':<20} p, corrected"]
        facts = facts_of(report.findings)
        lines += [line for fact in facts[:20] for line in _fact_lines(report, fact)]
        if len(facts) > 20:
            lines.append(f"and {len(facts) - 20} more")
        lines += ["", *_advice_lines(report)]
    if report.unreadable:
        lines.append(f"{len(report.unreadable)} pictures cannot be read: {report.unreadable[0][0]}, ...")
    if report.left_out:
        lines.append(f"{len(report.left_out)} left out: {report.left_out[0][0]} ({report.left_out[0][1]}), ...")
    return [*lines, *report.notes]


def _fact_lines(report: AuditResult, fact: Fact) -> list[str]:
    """The cue that shows it best, and below it those that say the same."""
    reading = fact.lead.reading
    title, name = title_of(reading.cue, masked=report.masked), _shortened(report.spoken(reading.label), 22)
    lines = [f"{name:<22} {_shortened(title, 44):<44} {area_words(reading):<20} {reading.p_value:.3f}"]
    if fact.others:
        lines.append(f"{'':<22} {same_words(report, fact)}")
    return lines


def same_words(report: AuditResult, fact: Fact) -> str:
    """The cues that say what a fact's best one says: ``the same by texture, corners``."""
    titles = dict.fromkeys(title_of(finding.reading.cue, masked=report.masked) for finding in fact.others)
    short = [title.replace(" of the background", "").replace(" in the background", "") for title in titles]
    return f"the same by {', '.join(short)}"


def _advice_lines(report: AuditResult) -> list[str]:
    """Lines of advice, each once, with the cues that it is for."""
    cues = dict.fromkeys(finding.reading.cue for finding in report.findings)
    order = [cue.name for cue in CUES]
    titles: dict[Advice, list[str]] = {}
    for cue in sorted(cues, key=lambda cue: order.index(cue.name) if cue.name in order else len(order)):
        titles.setdefault(advice_for(cue, masked=True), []).append(title_of(cue, masked=report.masked))
    lines = [
        f"{', '.join(titles_of_cues)}: {advice.method}. Check by hand: {advice.check}."
        for advice, titles_of_cues in titles.items()
    ]
    unmasked = not report.masked and any(cue.kind == "background" for cue in cues)
    return [f"{_WITHOUT_MASKS}."] * unmasked + lines


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
