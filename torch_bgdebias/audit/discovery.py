"""The result of `discover`: groups of pictures and where the model looks in them, to print, write and show."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torch_bgdebias._version import __version__
from torch_bgdebias.audit.clusters import Cluster
from torch_bgdebias.audit.templating import environment, jpeg
from torch_bgdebias.files import first_few
from torch_bgdebias.probe.page.pictures import embedded
from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.spelling import Sentence, say, strong
from torch_bgdebias.writing import write_text

__all__ = ["Discovery"]

SCHEMA = "torch_bgdebias.discovery/1"
#: groups and pictures that a page shows; what stands further apart than this is called suspicious
_GROUPS, _PICTURES = 12, 8
SUSPICIOUS = 3.0
_ADVICE = say(
    "Look at its pictures below: if what they share is no part of the object, hide it or spread it over the classes "
    "(a mark: cover it, or ISNet; a scene: BackgroundSwap or CLAD), train again, and prove it with bgdebias probe."
)


@dataclass(frozen=True)
class Discovery:
    """Groups of pictures that a model recognises by something other than most pictures of their class.

    Attributes:
        classes: names by number.
        labels: (N,) classes of the pictures that were inspected.
        index: (N,) their positions in the data set.
        names: of their files, or their positions.
        clusters: the most suspicious first.
        method: what explained the model.
        thumbnails: JPEG.
        unreadable: (name, reason).
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    names: Sequence[str]
    clusters: Sequence[Cluster]
    method: str
    thumbnails: Sequence[bytes]
    unreadable: Sequence[tuple[str, str]]

    def pictures(self, cluster: int = 0, count: int = 50) -> NDArray[np.int64]:
        """Positions in the data set of a group's most typical pictures, ``count`` or all that it has."""
        group = self.clusters[cluster]
        return np.asarray(self.index[group.rows[: min(count, group.size)]])

    def summary(self) -> str:
        """A few lines for a terminal."""
        suspicious = [group for group in self.clusters if group.suspicion >= SUSPICIOUS]
        count_words = f"{len(suspicious)} groups stand apart (by {SUSPICIOUS:g} or more)"
        lines = [f"{len(self.labels):,} pictures, {self.method}; {count_words}"]
        for group in self.clusters[:8]:
            typical = ", ".join(self.names[row] for row in group.rows[:3])
            name = self.classes[group.label]
            lines.append(
                f"{group.suspicion:5.2f}  {name}: {group.size} pictures, {_place_words(group.place)} ({typical}, ...)"
            )
        lines.append("What a whole class shares makes no group: bgdebias audit and bgdebias probe tell that.")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The results as plain values, for JSON."""
        groups = [
            {
                "class": group.label,
                "name": self.classes[group.label],
                "suspicion": group.suspicion,
                "size": group.size,
                "space": group.space,
                "pictures": [self.names[row] for row in group.rows[: group.size]],
            }
            for group in self.clusters
        ]
        header = {"schema": SCHEMA, "version": __version__, "method": self.method, "classes": list(self.classes)}
        return {**header, "clusters": groups, "unreadable": [list(pair) for pair in self.unreadable]}

    def to_json(self, path: str | Path) -> None:
        """Write `to_dict` as JSON; an interrupted run leaves no partial file."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def to_html(self, path: str | Path, *, title: str = "What the model looks at") -> None:
        """Write one self-contained page: the groups with their pictures and places."""
        rows = [self._row(group) for group in self.clusters[:_GROUPS]]
        line = f"{len(self.labels):,} pictures · {len(self.classes)} classes · {self.method}"
        sections = [
            Section("header.html", {"title": title, "line": line}),
            Section("discovery_first.html", {"sentences": self._verdict()}),
            Section("discovery.html", {"rows": rows, "suspicious": SUSPICIOUS}),
        ]
        page = environment().get_template("page.html").render(title=title, sections=sections, version=__version__)
        write_text(path, page)

    def _verdict(self) -> list[Sentence]:
        """The sentences of the first screen."""
        suspicious = [group for group in self.clusters if group.suspicion >= SUSPICIOUS]
        sentences = [_suspicious_sentence(suspicious, self.classes)]
        if suspicious:
            sentences.append(_ADVICE)
        else:
            sentences.append(
                say(
                    "It is no proof: a cue that all pictures of a class share makes no group. ",
                    "bgdebias audit and bgdebias probe tell that.",
                )
            )
        if self.unreadable:
            names = first_few(name for name, _ in self.unreadable)
            sentences.append(say(f"{len(self.unreadable)} pictures cannot be read: {names}."))
        return sentences

    def _row(self, group: Cluster) -> dict[str, Any]:
        shots = [(jpeg(self.thumbnails[row]), self.names[row]) for row in group.rows[:_PICTURES]]
        mean = np.mean([_grey_pixels(self.thumbnails[row]) for row in group.rows[: min(group.size, 100)]], axis=0)
        return {
            "name": self.classes[group.label],
            "suspicion": f"{group.suspicion:.2f}",
            "apart": group.suspicion >= SUSPICIOUS,
            "size": group.size,
            "where": _place_words(group.place),
            "map": embedded(_picture_of_place(group.place, mean)),
            "shots": shots,
        }


def _suspicious_sentence(suspicious: Sequence[Cluster], classes: Sequence[str]) -> Sentence:
    if not suspicious:
        return say(strong("No group of pictures stands apart from the rest of its class."))
    first, plural = suspicious[0], len(suspicious) > 1
    count_words = (
        f"{len(suspicious)} groups of pictures stand apart" if plural else "One group of pictures stands apart"
    )
    where = _place_words(first.place)
    place_text = "in the middle" if where == "middle" else f"at the {where}"
    group_text = f"{first.size} pictures of {classes[first.label]}, by what is {place_text}"
    return say(strong(f"{count_words} from the rest of {'their classes' if plural else 'its class'}. "),
               f"Furthest{' of all' if plural else ''}: {group_text}.")  # fmt: skip


def _grey_pixels(thumbnail: bytes) -> NDArray[np.float64]:
    picture = Image.open(io.BytesIO(thumbnail)).convert("L").resize((96, 96))
    return np.asarray(picture).astype(np.float64)


def _picture_of_place(place: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The group's mean picture under its place, red."""
    side = len(mean) // len(place)
    strength = np.kron(place / max(float(place.max()), 1e-12), np.ones((side, side)))[..., None]
    tinted = (1 - 0.8 * strength) * (0.5 * mean[..., None] + 110) + 0.8 * strength * np.array([190.0, 20.0, 30.0])
    return np.ascontiguousarray(tinted.clip(0, 255).astype(np.uint8))


def _place_words(place: NDArray[np.float64]) -> str:
    """The place in words: ``top left``."""
    weight = np.arange(len(place)) + 0.5
    down, across = (float((place.sum(axis) * weight).sum()) / len(place) for axis in (1, 0))
    vertical = "top" if down < 1 / 3 else "bottom" if down > 2 / 3 else ""
    horizontal = "left" if across < 1 / 3 else "right" if across > 2 / 3 else ""
    return " ".join(word for word in (vertical, horizontal) if word) or "middle"
