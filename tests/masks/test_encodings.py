"""A random foreground is read back from every encoding; void never counts as object."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from mask_encoders import ENCODERS, INSIDE, band_around, save

from torch_bgdebias.masks import MaskEncoding, read_mask
from torch_bgdebias.masks.reading import MaskReader


@st.composite
def foregrounds(draw):
    """A blob: an ellipse in a picture of any size, sometimes with a hole; never empty, never everything."""
    height, width = draw(st.integers(24, 60)), draw(st.integers(24, 60))
    top, left = draw(st.floats(0.3, 0.7)) * height, draw(st.floats(0.3, 0.7)) * width
    tall, wide = draw(st.floats(0.12, 0.28)) * height, draw(st.floats(0.12, 0.28)) * width
    y, x = np.mgrid[:height, :width]
    inside = ((y - top) / tall) ** 2 + ((x - left) / wide) ** 2 <= 1
    if draw(st.booleans()):
        inside &= ~((np.abs(y - top) < 2) & (np.abs(x - left) < 2))
    return inside


@pytest.mark.parametrize("name", list(ENCODERS))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inside=foregrounds())
def test_the_same_foreground_comes_back(name, inside):
    ending, write = ENCODERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask{ending}"
        write(inside, path)
        alone = read_mask(path).numpy()[0]
        together = MaskReader.of_folder([path], MaskEncoding()).open(path)
    np.testing.assert_array_equal(alone > 127, inside, err_msg=name)
    np.testing.assert_array_equal(np.asarray(together.foreground), alone)
    assert "JPEG" in name or set(np.unique(alone)) <= {0, 255}
    if name.startswith("VOC") or "void" in name:
        np.testing.assert_array_equal(np.asarray(together.void) > 0, band_around(inside))
    else:
        assert together.void is None


@settings(max_examples=20, deadline=None)
@given(inside=foregrounds(), seed=st.integers(0, 99))
def test_soft_masks_stay_soft(inside, seed):
    soft = np.clip(inside + np.random.default_rng(seed).normal(0, 0.2, inside.shape), 0, 1)
    with tempfile.TemporaryDirectory() as folder:
        for name, values, exact in (
            ("8.png", np.round(soft * 255).astype(np.uint8), 0.5),
            ("16.png", np.round(soft * 65535).astype(np.uint16), 0.51),
            ("f.npy", soft.astype(np.float32), 0.51),
        ):
            path = Path(folder) / name
            ENCODERS["bool array"][1](values, path) if name == "f.npy" else save(values, path)
            np.testing.assert_allclose(read_mask(path).numpy()[0], soft * 255, atol=exact)


@pytest.mark.parametrize("kind", ["0 and 255", "0 and 1", "float array", "JPEG", "label map", "grey with alpha"])
def test_foreground_0_turns_round(tmp_path, kind):
    ending, write = ENCODERS[kind]
    write(~INSIDE, tmp_path / f"m{ending}")
    assert (
        (read_mask(tmp_path / f"m{ending}", encoding=MaskEncoding(foreground=(0,))) > 127).numpy()[0] == INSIDE
    ).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kind": "mask"}, r"encoding: expected one of 'auto', .* got 'mask'"),
        ({"foreground": (1.5,)}, r"foreground: expected whole numbers from 0 or colours .* got 1.5"),
        ({"foreground": ((1.0, 0.5, 0.0),)}, r"foreground: expected whole numbers .* got \(1.0, 0.5, 0.0\)"),
        ({"foreground": (float("nan"),)}, r"foreground: expected whole numbers from 0 or colours .* got nan"),
        ({"white": 0}, r"white: expected the value of full foreground, above 0, got 0"),
        ({"white": -255.0}, r"white: expected the value of full foreground, above 0, got -255.0"),
        ({"void": ("red",)}, r"void: expected whole numbers .* got 'red'"),
        ({"foreground": ()}, r"foreground: expected some labels, got none"),
        ({"foreground": (1, 2), "void": (2,)}, r"void: expected other labels than foreground, got 2 in both"),
    ],
)
def test_bad_settings(arguments, text):
    with pytest.raises(ValueError, match=text):
        MaskEncoding(**arguments)


def test_settings_are_a_value():
    assert MaskEncoding(foreground=[1, "#ff0000"]).foreground == (1, (255, 0, 0))
    assert dataclasses.replace(MaskEncoding("index"), void=255).void == (255,)
    assert MaskEncoding() == MaskEncoding("auto")
