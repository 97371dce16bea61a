"""Data of a certificate's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch_bgdebias.metrics.certificate import AccuracyCertificate
from torch_bgdebias.probe.page.render import Section

__all__ = ["certificate_section"]


def certificate_section(
    title: str,
    sentence: str,
    covers: Sequence[str],
    certified: AccuracyCertificate,
    per_class: Mapping[str, AccuracyCertificate],
    right_on: Sequence[int],
    counts: Mapping[str, int],
    settings: Mapping[str, Any],
) -> Section:
    """Sentence, what it covers, the objects by how often they are right, classes, settings.

    Args:
        title: of the page.
        sentence: what is certified.
        covers: of what, and of what not.
        certified: of all objects.
        per_class: by class, the least certain first on the page.
        right_on: how many objects are right on 0, 1, ... of their backgrounds.
        counts: what was there and what was left out.
        settings: of the measurement.
    """
    rows = sorted(per_class.items(), key=lambda item: (item[1].at_least, item[0]))
    data = {
        "title": title,
        "sentence": sentence,
        "covers": list(covers),
        "certified": certified,
        "classes": rows,
        "right_on": list(enumerate(right_on)),
        "counts": [(kind.replace("_", " "), number) for kind, number in counts.items()],
        "settings": [(name.replace("_", " "), value) for name, value in settings.items() if value is not None],
    }
    return Section("certificate.html", data)
