"""This room's templates, the ones it shares with the reports, and thumbnails embedded in pages."""

from __future__ import annotations

import base64
import functools

import jinja2

__all__ = ["environment", "jpeg"]


@functools.cache
def environment() -> jinja2.Environment:
    """Everything that a template prints is escaped."""
    packages = ("torch_bgdebias.audit", "torch_bgdebias.probe.page")
    made_of = jinja2.ChoiceLoader([jinja2.PackageLoader(package, "templates") for package in packages])
    shared = jinja2.Environment(
        loader=made_of, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shared.globals["footnotes"] = ()
    return shared


def jpeg(thumbnail: bytes) -> str:
    """A thumbnail that is JPEG already, as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail).decode("ascii")
