"""Heatmaps as a report keeps and shows them."""

from __future__ import annotations

import numpy as np
import torch

from torch_bgdebias.probe.results.heatmaps import NEUTRAL, heat_picture, packed_heatmap, packed_mask, unpacked_heatmap


def test_heatmaps_are_red_for_blue_against_and_outlined() -> None:
    picture = np.full((8, 8, 3), 100, np.uint8)
    attribution = torch.full((8, 8), 2.0)
    attribution[4:] = -2
    attribution[:, 7] = 0
    mask = torch.zeros(8, 8)
    mask[2:7, 2:7] = 1
    heat = packed_heatmap(attribution, (8, 8))
    assert (np.sign(unpacked_heatmap(heat)) == np.sign(attribution.numpy())).all()
    shown = heat_picture(picture, heat, packed_mask(mask, (8, 8))).astype(int)
    assert shown[0, 0].tolist() == [190, 20, 30]
    assert shown[7, 0].tolist() == [25, 70, 200]
    assert len(set(shown[0, 7].tolist())) == 1  # no evidence: the grey of the picture
    assert (shown[2, 2:7] == 0).all()
    assert (shown[1, 2:7] == 255).all()
    assert (shown[3, 3] == [190, 20, 30]).all()
    assert (packed_heatmap(torch.zeros(4, 4), (8, 8)) == NEUTRAL).all()
    assert (heat_picture(picture, packed_heatmap(torch.zeros(8, 8), (8, 8))) == 177).all()
