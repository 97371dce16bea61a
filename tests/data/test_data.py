"""The room's door: lazy names, and nothing heavy imported with it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import torch_bgdebias.data as room


def test_every_name_is_there():
    for name in room.__all__:
        assert getattr(room, name) is not None
    assert set(room.__all__) <= set(dir(room))
    with pytest.raises(AttributeError, match=r"has no attribute 'ImageNet10'; it has .*CAMERAS, "):
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


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("torch_bgdebias.data.files", "read_mask", "torch_bgdebias.masks.reading"),
        ("torch_bgdebias.data.files", "read_image", "torch_bgdebias.files"),
        ("torch_bgdebias.swap.folder", "cover", "torch_bgdebias.backgrounds.folder"),
    ],
)
def test_old_places_say_where_a_name_went(old, name, new):
    with pytest.warns(DeprecationWarning, match=f"{old}.{name} is now {new}.{name}"):
        assert getattr(importlib.import_module(old), name) is getattr(importlib.import_module(new), name)
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = importlib.import_module(old).absent
