"""Heatmap pictures: colours around zero, scales, outlines, names, errors. Values are read back from the drawn axes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from torch_bgdebias.isnet.figures import heatmap_figure, heatmap_limits

pytest.importorskip("matplotlib")


def case(batch: int = 3, maps: int = 2, channels: int = 3, size: tuple[int, int] = (12, 9)):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, channels, *size, generator=generator)
    relevance = torch.randn(batch, maps, channels, *size, generator=generator)
    mask = torch.zeros(batch, 1, *size)
    mask[:, :, 3:8, 2:6] = 1
    return image, relevance, mask


def pictures(figure):
    """Per row of axes: the arrays that are shown (colour bars left out)."""
    axes = [a for a in figure.axes if a.images and a.get_label() != "<colorbar>"]
    return axes, [a.images[0] for a in axes]


def test_zero_is_white_and_in_the_middle():
    image, relevance, mask = case()
    relevance[0] = relevance[0].abs() + 1  # nothing negative: the scale must stay symmetric
    relevance[1, :, :, 0, 0] = 0
    _, shown = pictures(heatmap_figure(image, relevance, mask))
    for drawn in (s for s in shown if s.get_array().ndim == 2):
        low, high = drawn.get_clim()
        assert low == -high < 0
        np.testing.assert_allclose(drawn.cmap(drawn.norm(0.0)), (1, 1, 1, 1), atol=0.02)
        red, blue = drawn.cmap(drawn.norm(high)), drawn.cmap(drawn.norm(low))
        assert red[0] > red[2]
        assert blue[2] > blue[0]


def test_shows_the_sum_over_channels_and_one_scale_each():
    image, relevance, mask = case()
    relevance[2, 1] *= 100
    _, shown = pictures(heatmap_figure(image, relevance, mask))
    assert len(shown) == 3 * 3
    np.testing.assert_allclose(shown[8].get_array(), relevance[2, 1].sum(0).numpy(), rtol=1e-5)
    limits = heatmap_limits(relevance)
    np.testing.assert_allclose(shown[8].get_clim()[1], limits[2, 1].item(), rtol=1e-5)
    assert limits[2, 1] > 20 * limits[2, 0]
    np.testing.assert_allclose(shown[0].get_array(), image[0].permute(1, 2, 0).numpy(), atol=1e-6)


def test_limits_ignore_a_single_bright_pixel_and_survive_zeros():
    relevance = torch.ones(3, 1, 1, 30, 30)
    relevance[0, 0, 0, 0, 0] = 1000
    relevance[1] = 0
    relevance[2] = 0
    relevance[2, 0, 0, 5, 5] = -4  # fewer pixels than the quantile leaves out
    assert heatmap_limits(relevance).flatten().tolist() == [1.0, 1.0, 4.0]
    with pytest.raises(ValueError, match="quantile: expected in"):
        heatmap_limits(relevance, 0.0)


def test_outline_follows_the_mask():
    image, relevance, mask = case(batch=3, maps=1)
    mask[1] = 0
    mask[2] = 1
    axes, _ = pictures(heatmap_figure(image, relevance, mask))
    assert [len(a.collections) for a in axes] == [2, 2, 0, 0, 0, 0]  # no outline without an edge
    lines = np.concatenate([p.vertices for p in axes[0].collections[0].get_paths()])
    assert lines[:, 0].min() == pytest.approx(1.5)
    assert lines[:, 0].max() == pytest.approx(5.5)
    assert lines[:, 1].min() == pytest.approx(2.5)
    assert lines[:, 1].max() == pytest.approx(7.5)


def test_titles_say_what_it_is():
    image, relevance, mask = case(batch=2)
    relevance = relevance * mask.unsqueeze(1)
    axes, _ = pictures(heatmap_figure(image, relevance, mask, titles=["cow", "sheep"], map_names=["z+", "epsilon"]))
    assert [a.get_title() for a in axes[:3]] == ["cow", "z+: 100% on foreground", "epsilon: 100% on foreground"]
    axes, _ = pictures(heatmap_figure(image, relevance, map_names=["z+", "epsilon"]))
    assert [a.get_title() for a in axes[:3]] == ["0", "z+", "epsilon"]


def test_normalised_and_grey_images_are_shown_in_range():
    image, relevance, _ = case(channels=3)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    normal = (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    _, shown = pictures(heatmap_figure(normal, relevance, mean=mean, std=std))
    np.testing.assert_allclose(shown[0].get_array(), image[0].permute(1, 2, 0).numpy(), atol=1e-5)
    grey, relevance, _ = case(channels=1)
    _, shown = pictures(heatmap_figure(grey, relevance))
    np.testing.assert_allclose(shown[0].get_array(), grey[0, 0].numpy(), atol=1e-6)


def test_renders_without_pyplot(tmp_path):
    image, relevance, mask = case(batch=20)
    image.requires_grad_()
    figure = heatmap_figure(image, relevance.bfloat16(), mask.bool(), max_images=2)
    assert len(pictures(figure)[0]) == 2 * 3
    figure.savefig(tmp_path / "heatmaps.png")
    assert (tmp_path / "heatmaps.png").stat().st_size > 1000
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_bad_input_is_named():
    image, relevance, mask = case()
    with pytest.raises(ValueError, match="relevance: expected the images' batch and size"):
        heatmap_figure(image, relevance[:, :, :, 1:], mask)
    with pytest.raises(ValueError, match="relevance: expected shape"):
        heatmap_figure(image, relevance[:, 0], mask)
    with pytest.raises(ValueError, match="mask: expected shape"):
        heatmap_figure(image, relevance, mask[:2])
    with pytest.raises(ValueError, match="relevance: expected finite"):
        heatmap_figure(image, relevance / 0, mask)
    with pytest.raises(ValueError, match="map_names: expected 2 of them, got 1"):
        heatmap_figure(image, relevance, map_names=["one"])
    with pytest.raises(ValueError, match="titles: expected 3 of them, got 1"):
        heatmap_figure(image, relevance, titles=["one"])
