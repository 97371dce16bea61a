"""LRP as an attribution: its limits, every way to say what is explained, the model as it was."""

from __future__ import annotations

import subprocess
import sys

import hostile
import pytest
import torch
from torch import nn

from torch_bgdebias.attribution import lrp
from torch_bgdebias.metrics import pixel_ratio


def network(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=bias), nn.ReLU(), nn.Conv2d(5, 4, 3, stride=2, bias=bias), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3, bias=bias),
    )  # fmt: skip


def images(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 3, 10, 9, generator=torch.Generator().manual_seed(1))[..., :9, :]


def test_without_biases_and_epsilon_it_is_input_times_gradient():
    pytest.importorskip("zennit")
    from torch_bgdebias.lrp import FlexComposite

    model, image, target = network(bias=False), images(), torch.tensor([0, 2, 1])
    attribution = lrp(model, image, target, composite=FlexComposite(epsilon=0))
    entering = image.clone().requires_grad_()
    score = model.eval()(entering).gather(1, target[:, None])
    (gradient,) = torch.autograd.grad(score.sum(), entering)
    torch.testing.assert_close(attribution, (entering * gradient).sum(1, keepdim=True).detach(), rtol=1e-4, atol=1e-6)
    # without biases the relevance adds up to the score
    torch.testing.assert_close(attribution.sum((1, 2, 3)), score[:, 0].detach(), rtol=1e-4, atol=1e-5)


def test_linear_model_gives_weight_times_input():
    pytest.importorskip("zennit")
    model, image = nn.Sequential(nn.Flatten(), nn.Linear(243, 2)), images()
    expected = (model[1].weight[1] * image.flatten(1)).reshape(image.shape).sum(1, keepdim=True)
    torch.testing.assert_close(lrp(model, image, 1), expected.detach())


def test_target_defaults_to_the_prediction():
    pytest.importorskip("zennit")
    model, image = network(), images(6)
    with torch.no_grad():
        predicted = model.eval()(image).argmax(1)
    assert torch.equal(lrp(model, image), lrp(model, image, predicted))
    one, all_of_them = lrp(model, image[:1], 2), lrp(model, image, 2)
    torch.testing.assert_close(one, all_of_them[:1])


def test_other_composites_and_other_outputs():
    pytest.importorskip("zennit")
    from zennit.composites import EpsilonPlus

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x):
            return {"scores": self.net(x), "other": x}

    image = images()
    plain = lrp(network(), image, 1)
    torch.testing.assert_close(lrp(Wrapped(), image, 1, logits="scores"), plain)
    plus = lrp(network(), image, 1, composite=EpsilonPlus())
    assert plus.shape == (3, 1, 9, 9)
    assert not torch.allclose(plus, plain)


def test_the_model_is_left_as_it_was():
    pytest.importorskip("zennit")
    model = network().train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        attribution = lrp(model, images())
        assert pixel_ratio(attribution, torch.ones(3, 1, 9, 9)).tolist() == [1, 1, 1]
    assert model.training
    assert not model[2].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert not attribution.requires_grad


def test_bad_input():
    pytest.importorskip("zennit")
    model, image = network(), images()
    with pytest.raises(ValueError, match=r"target: expected classes in \[0, 2\], got \[3, 3\]"):
        lrp(model, image, 3)
    with pytest.raises(TypeError, match="composite: expected a zennit Composite, got str"):
        lrp(model, image, composite="epsilon")
    with pytest.raises(TypeError, match="image: expected a floating point tensor"):
        lrp(model, image.long())
    with pytest.raises(TypeError, match="no logits at 'scores'"):
        lrp(model, image, logits="scores")


def test_importing_the_room_does_not_import_zennit():
    code = "import sys, torch_bgdebias.attribution; sys.exit('zennit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@hostile.wrong(image=hostile.IMAGES, but=["image: NaN", "image: infinite"])
def test_wrong_images_are_named(wrong):
    """Values that are not finite are named where relevance is not finite."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    wrong.refused_by(lambda image: lrp(model, image), image=torch.rand(2, 3, 8, 8))
