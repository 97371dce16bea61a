"""The room's door: lazy names, and nothing heavy imported with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import torch_bgdebias.data as room


def test_every_name_is_there():
    for name in room.__all__:
        assert getattr(room, name) is not None
    assert dir(room) == sorted(room.__all__)
    with pytest.raises(AttributeError, match=r"has no attribute 'ImageNet10'; it has CAMERAS, "):
        _ = room.ImageNet10


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        ("__all__", "torchvision kornia cv2 PIL sklearn pytorch_lightning"),
        ("make_variant, draw_scenes", "torchvision kornia cv2 sklearn pytorch_lightning"),
        ("MaskedImageFolder, CorrelatedBackgrounds, VOCObjects, grabcut_masks", "torchvision kornia cv2 sklearn"),
    ],
)
def test_imports_nothing_heavy(names, absent):
    code = (
        f"import sys; from torch_bgdebias.data import {names}; "
        f"print([n for n in '{absent}'.split() if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
