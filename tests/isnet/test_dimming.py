"""Dimmed backgrounds: the arithmetic, the draws, and the blind spot of relevance that they are for."""

from __future__ import annotations

import hostile
import pytest
import torch
from torch import nn

from torch_bgdebias.isnet import BackgroundDimming, ISNet, dim_background, draw_keep


def test_scales_the_background_alone():
    image = torch.rand(3, 2, 4, 5, dtype=torch.float64) - 0.5
    mask = torch.rand(3, 1, 4, 5, dtype=torch.float64)
    keep = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    dimmed = dim_background(image, mask, keep)
    for b in range(3):
        expected = mask[b] * image[b] + (1 - mask[b]) * keep[b] * image[b]
        torch.testing.assert_close(dimmed[b], expected)
    torch.testing.assert_close(dimmed[2], image[2])
    torch.testing.assert_close(
        dim_background(image, (mask > 0.5)[:, 0], keep), dim_background(image, mask.round(), keep)
    )


def test_draws_are_the_generator_s():
    def draw(seed: int, p: float = 1.0) -> torch.Tensor:
        return draw_keep(10_000, p, generator=torch.Generator().manual_seed(seed))

    torch.testing.assert_close(draw(0), draw(0), rtol=0, atol=0)
    assert (draw(0) != draw(1)).any()
    assert abs(draw(0).mean() - 0.5) < 0.02
    assert abs((draw(0, 0.3) == 1).float().mean() - 0.7) < 0.02
    assert (draw(0, 0.0) == 1).all()


def test_module_dims_while_training_only():
    image, mask = torch.rand(2, 3, 4, 4) + 0.1, torch.zeros(2, 1, 4, 4)
    module = BackgroundDimming(1.0)
    assert (module(image, mask) < image).all()
    assert module.eval()(image, mask) is image
    torch.testing.assert_close(module(image, mask, keep=torch.tensor([0.5, 0.0]))[0], image[0] / 2)
    assert "p=0.25" in repr(BackgroundDimming(0.25))


def test_bad_input_is_named():
    image, mask = torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"keep: expected shape \(2,\)"):
        dim_background(image, mask, torch.ones(3))
    with pytest.raises(ValueError, match=r"mask: expected shape"):
        dim_background(image, mask[..., :2], torch.ones(2))
    with pytest.raises(ValueError, match=r"p: expected in \[0, 1\], got 1.5"):
        BackgroundDimming(1.5)
    with pytest.raises(ValueError, match=r"p: expected in \[0, 1\], got -1"):
        draw_keep(2, -1)


def inhibited() -> nn.Sequential:
    """Class 0 gains from a unit that is on unless the corner pixel is bright."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net[1].weight[0, 0], net[1].bias[0] = -2.0, 1.0  # the corner switches this unit off
        net[1].weight[1, 4] = 1.0  # the foreground's own evidence
        net[3].weight[0, 0], net[3].weight[1, 1] = -5.0, 1.0
    return net


def test_relevance_at_the_image_alone_is_blind_to_what_it_switches_off():
    net = inhibited()
    image = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    image[..., 1, 1] = image[..., 0, 0] = 1.0
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    mask[..., 1, 1] = 1
    isnet = ISNet(net, epsilon=0.0)
    marked = isnet.explain(image, target=torch.tensor([0]))
    unmarked = isnet.explain(dim_background(image, mask, torch.zeros(1)), target=torch.tensor([0]))
    assert marked.logits[0, 0] - unmarked.logits[0, 0] == 5  # the corner decides
    assert (marked.relevance[..., 0, 0] == 0).all()  # and has no relevance
    assert (unmarked.relevance[..., 0, 0] == 0).all()

    # along the path it has, and the path integral of the module's text is the difference of the scores
    steps = torch.arange(1000, dtype=torch.float64).add(0.5) / 1000
    path = dim_background(image.expand(1000, -1, -1, -1), mask.expand(1000, -1, -1, -1), steps)
    relevance = isnet.explain(path, target=torch.zeros(1000, dtype=torch.int64)).relevance[:, 0]
    background = (relevance * (1 - mask)).sum((1, 2, 3))
    torch.testing.assert_close((background / steps).mean(), torch.tensor(5.0, dtype=torch.float64), rtol=1e-3, atol=0)


@hostile.wrong(image=hostile.IMAGES, mask=hostile.MASKS, but=["image: NaN", "image: infinite"])
def test_wrong_images_and_masks_are_named(wrong):
    """Values that are not finite stay so, and the loss names them."""
    wrong.refused_by(BackgroundDimming(), image=torch.rand(2, 3, 6, 7), mask=torch.zeros(2, 1, 6, 7))
