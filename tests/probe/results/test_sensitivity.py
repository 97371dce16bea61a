"""`MaskSensitivity`: how far the gap moves by quality, and the sentence that says whether it can be trusted."""

from __future__ import annotations

import json
import math

import pytest

from torch_bgdebias.probe.results.sensitivity import MaskRow, MaskSensitivity


def measured(quality=None, gaps=((0.95, 0.101), (0.9, 0.11), (0.8, 0.093), (0.7, 0.15), (0.5, 0.02))):
    rows = [MaskRow(f"way {i}", overlap, 50, {"bg_gap": gap}) for i, (overlap, gap) in enumerate(gaps)]
    return MaskSensitivity((MaskRow("as given", 1.0, 50, {"bg_gap": 0.1}), *rows), quality)


@pytest.mark.parametrize(
    ("quality", "moved"),
    [(1.0, 0.001), (0.95, 0.001), (0.93, 0.01), (0.8, 0.01), (0.75, 0.05), (0.5, 0.08), (0.4, None)],
)
def test_the_next_worse_masks_count_too(quality, moved):
    result = measured().within(quality)
    assert result is None if moved is None else result == pytest.approx(moved)


def test_sentences():
    assert "(overlap 0.90) the BG-Gap is right to ± 1.0 points" in measured(0.9).sentence()
    assert "cannot be trusted to 2 points: it moved by up to 5.0" in measured(0.75).sentence()
    assert "No masks as bad as an overlap of 0.30 were tried" in measured(0.3).sentence()
    assert "stayed within 2 points as long as masks overlapped with the given ones by 0.80" in measured().sentence()
    assert "unless the masks are right, it cannot be trusted" in measured(gaps=((0.95, 0.2),)).sentence()
    assert measured().trusted_from(0.005) == 0.95


def test_what_is_not_known_is_never_trusted():
    unknown = measured(0.9, gaps=((0.95, math.nan), (0.9, 0.1)))
    assert unknown.within(0.9) is None
    assert "cannot be trusted" in unknown.sentence()
    assert unknown.trusted_from() is None
    json.dumps(unknown.to_dict(), allow_nan=False)


def test_what_chance_alone_may_do_is_said():
    rows = (*measured().rows[:2], MaskRow("other", 0.9, 50, {"bg_gap": 0.11}, chance=0.034))
    text = MaskSensitivity(rows, 0.9).sentence()
    assert "right to ± 1.0 points" in text
    assert text.endswith("On 50 images each change is known to ± 3.4 points at worst.")


def test_table_and_bad_quality():
    text = measured(0.9).summary()
    assert "way 3" in text
    assert "15.0" in text
    with pytest.raises(ValueError, match="quality"):
        measured(1.5)
