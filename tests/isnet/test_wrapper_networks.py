"""Real networks where toys are too simple: auxiliary heads in training mode, and low precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from torch_bgdebias import ISNet

models = pytest.importorskip("torchvision").models


@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_auxiliary_heads_train_on_their_own_loss_alone(variant):
    torch.manual_seed(0)
    model = models.googlenet(weights=None, num_classes=4, aux_logits=True, init_weights=False).train()
    image, label = torch.rand(2, 3, 64, 64), torch.tensor([0, 3])
    isnet = ISNet(model, variant, dual_target="sum")
    with isnet.watching() as watch:
        output = model(image)
        loss = F.cross_entropy(output.logits, label) + 0.3 * F.cross_entropy(output.aux_logits1, label)
    explanation = watch.explain()
    assert torch.equal(explanation.logits, output.logits)
    aux = model.aux1.fc2.weight
    squares = explanation.relevance.square()
    assert torch.autograd.grad(squares.sum(), aux, retain_graph=True, allow_unused=True)[0] is None
    (loss + squares.mean()).backward()
    assert aux.grad.abs().sum() > 0
    assert model.conv1.conv.weight.grad.isfinite().all()
    assert model.aux2.fc2.weight.grad is None


def settled() -> tuple[torch.nn.Module, torch.Tensor]:
    """A residual network whose running statistics fit its random weights."""
    torch.manual_seed(0)
    model, image = models.resnet18(weights=None, num_classes=4), torch.rand(4, 3, 64, 64)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = None
    with torch.no_grad():
        model.train()(image)
    return model.eval(), image


def likeness(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return F.cosine_similarity(one.flatten(1), other.flatten(1)).min()


@pytest.mark.parametrize("rule", ["gradient", "zbox"])
@pytest.mark.parametrize("variant", ["selective", "dual"])
def test_bfloat16_autocast_costs_no_more_than_in_the_plain_gradient(variant, rule):
    model, image = settled()
    isnet, x = ISNet(model, variant, dual_target="sum", input_rule=rule), image.clone().requires_grad_()
    plain, heatmaps = [], []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = model(x)
            heatmaps.append(isnet.explain(image).relevance)
        plain.append(torch.autograd.grad(logits.float().square().sum(), x)[0])
    assert heatmaps[1].dtype == torch.float32
    assert likeness(*plain) < 0.95  # a network with random weights is sensitive
    assert likeness(heatmaps[0][:, -1], heatmaps[1][:, -1]) > likeness(*plain)
    if variant == "dual":  # nothing cancels in LRP-z+
        assert likeness(heatmaps[0][:, 0], heatmaps[1][:, 0]) > 0.999
    heatmaps[1].abs().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.conv1.weight.grad.abs().sum() > 0
