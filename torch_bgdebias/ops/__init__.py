"""The one native operation under every background pattern, and what is known about its compiled kernels."""

from __future__ import annotations

from torch_bgdebias.ops.composite import voronoi_composite
from torch_bgdebias.ops.extension import ExtensionStatus, extension_status, load_extension

__all__ = ["ExtensionStatus", "extension_status", "voronoi_composite"]

load_extension()  # after the schema exists, which importing composite did
