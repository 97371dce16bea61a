"""One recorded pass and what is read from it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from isnet_networks import picture, small
from torch import Tensor, nn

from torch_bgdebias import ISNet


def test_hidden_relevance_is_layers_value_times_modified_gradient():
    """The layer's input taken for the image gives the same heatmap as the layer as part of the whole."""
    model = small().eval()
    explanation = ISNet(model, deep_supervision=["conv1"]).explain(picture(), torch.tensor([1, 2, 0]))

    class Rest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, z: Tensor) -> Tensor:
            x = self.inner.bn1(z).relu()
            return self.inner.fc(F.max_pool2d(self.inner.bn2(self.inner.conv2(x)).relu(), 2).mean((2, 3)))

    rest = ISNet(Rest().eval()).explain(model.conv1(picture()).detach(), torch.tensor([1, 2, 0]))
    torch.testing.assert_close(explanation.hidden["conv1"].detach(), rest.relevance.detach())


def test_watching_equals_explaining():
    model, x, label = small(), picture(), torch.tensor([0, 1, 2])
    isnet = ISNet(model)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    expected = isnet.explain(x)
    (F.cross_entropy(expected.logits, label) + expected.relevance.abs().sum()).backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.load_state_dict(state)
    with isnet.watching() as watch:
        assert len(watch) == 0
        loss = F.cross_entropy(model(x), label)
        with torch.no_grad():
            model.eval()(x)  # not recorded
        model.train()
    assert len(watch) == 1
    explanation = watch.explain()
    torch.testing.assert_close(explanation.relevance, expected.relevance)
    (loss + explanation.relevance.abs().sum()).backward()
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(parameter.grad, grad)
    with pytest.raises(RuntimeError, match="no forward pass of Plain"):
        watch.explain()


def test_several_recorded_passes_and_two_models_at_once():
    first, second = small(seed=1).eval(), small(seed=2).eval()
    x, y = picture(), picture() ** 2
    a, b = ISNet(first), ISNet(second, "original", epsilon=0.1)
    with a.watching() as outer, b.watching() as inner:
        first(x)
        second(x)
        first(y)
        nested = a.explain(y)  # a pass of its own, which the open watch does not see
    assert (len(outer), len(inner)) == (2, 1)
    torch.testing.assert_close(outer.explain(index=0).relevance, a.explain(x).relevance)
    torch.testing.assert_close(outer.explain().relevance, nested.relevance)
    torch.testing.assert_close(inner.explain().relevance, b.explain(x).relevance)
