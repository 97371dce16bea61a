"""Licences of weights: of makers known by name, and from a model's card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["Licence", "card_licence", "known_licence"]


@dataclass(frozen=True)
class Licence:
    """The licence terms of a maker's weights.

    Args:
        name: of the licence, ``"unknown"`` if no source states it.
        source: who says so.
        restricted: non-commercial, or with terms of its own.
        gated: the weights are handed out to those alone who have accepted the terms.
    """

    name: str
    source: str
    restricted: bool = False
    gated: bool = False

    def __str__(self) -> str:
        notes = ["not for commercial use, or with terms of its own: read them"] * self.restricted
        notes += ["gated: its publisher wants the terms accepted before it hands the weights out"] * self.gated
        return f"{self.name} ({'; '.join([self.source, *notes])})"


#: family, pattern of the model's name, licence, restricted, gated: as their publishers' cards said in 2025
_KNOWN = (
    ("rembg", "bria-rmbg", "BRIA RMBG, CC BY-NC 4.0", True, False),
    ("rembg", "birefnet*", "MIT", False, False),
    ("rembg", "sam", "Apache-2.0", False, False),
    ("rembg", "silueta", "Apache-2.0", False, False),
    ("rembg", "u2net*", "Apache-2.0", False, False),
    ("rembg", "isnet*", "Apache-2.0", False, False),
    ("transformers", "briaai/rmbg-2*", "BRIA RMBG, CC BY-NC 4.0", True, True),
    ("transformers", "briaai/*", "BRIA RMBG, non-commercial", True, False),
    ("transformers", "cidas/clipseg*", "Apache-2.0", False, False),
    ("transformers", "facebook/sam3*", "SAM License", True, True),
    ("transformers", "facebook/sam*", "Apache-2.0", False, False),
    ("transformers", "idea-research/grounding-dino*", "Apache-2.0", False, False),
    ("transformers", "nvidia/segformer*", "NVIDIA Source Code License, non-commercial", True, False),
    ("torchvision", "*", "BSD-3-Clause code; weights trained on COCO", False, False),
)
_RESTRICTING = re.compile(r"non.?commercial|\bnc\b|-nc-|research|other|llama|agpl", re.IGNORECASE)


def known_licence(family: str, model: str) -> Licence:
    """The licence of a published model, by its name."""
    for of_family, pattern, name, restricted, gated in _KNOWN:
        if of_family == family and fnmatch(model.lower(), pattern):
            return Licence(name, "as its publisher says", restricted, gated)
    return Licence("unknown", f"see where {model} comes from")


def card_licence(folder: Path) -> Licence:
    """The licence in a model card (README.md) that lies in a folder with weights."""
    card = folder / "README.md"
    if card.is_file():
        stated = re.search(
            r"^license(?:_name)?:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
        )
        if stated:
            name = stated.group(1).strip("'\"")
            return Licence(name, f"the model card in {folder.name}", bool(_RESTRICTING.search(name)))
    return Licence("unknown", f"see where {folder.name} comes from")
