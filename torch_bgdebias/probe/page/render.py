"""Fills the templates; everything that a template prints is escaped."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from torch_bgdebias._version import __version__

__all__ = ["FOOTNOTES", "Section", "page_html", "section_html"]

#: the footnotes in their order; templates refer to them by name
FOOTNOTES = (
    "gap",
    "variants",
    "decisions",
    "features",
    "pixel_ratio",
    "intervals",
    "changes",
    "worst",
    "areas",
    "answers",
)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        template: what draws it; it is given ``data``, and this section as ``part``.
        data: values.
        anchor: its id.
        heading: above it and in the table of contents; without one it is not listed there.
    """

    template: str
    data: Any
    anchor: str = ""
    heading: str = ""


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("torch_bgdebias.probe.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["footnotes"] = FOOTNOTES
    return environment


def section_html(section: Section) -> str:
    """The markup of one section."""
    return _environment().get_template(section.template).render(data=section.data, part=section)


def page_html(title: str, sections: Sequence[Section]) -> str:
    """A whole page, with its contents, style and script inside."""
    return _environment().get_template("page.html").render(title=title, sections=sections, version=__version__)
