"""The Dual ISNet's two heatmaps against the original implementation, and on networks it never knew."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from finite_differences import Derivative, assert_agree, derivatives
from torch import Tensor, nn

from torch_bgdebias import ISNet, ISNetLoss
from torch_bgdebias.isnet.targets import contrast_signs

#: of the central differences: small ones first, for the slope jumps where two pixels change their ranks
STEPS = (1e-7, 1e-8, 1e-9, 1e-6)


def sequential(norm: bool) -> nn.Sequential:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        bn = [nn.BatchNorm2d(outputs)] if norm else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *bn, nn.ReLU(inplace=True)]

    layers = [*block(3, 6), *block(6, 8), nn.MaxPool2d(2), *block(8, 8), nn.Flatten(), nn.Linear(288, 16)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(16, 5))


def distance(values: Tensor, expected: Tensor) -> float:
    return float((values.detach() - expected).norm() / expected.norm())


@pytest.mark.parametrize("rule", ["dual", "dual_zb"])
@pytest.mark.parametrize("name", ["sequential", "sequential_bn"])
def test_reference_heatmaps_and_gradients(vectors, name, rule):
    arrays = {
        k.removeprefix(f"{name}/"): torch.tensor(v) for k, v in vectors("dual").items() if k.startswith(f"{name}/")
    }
    model = sequential(name == "sequential_bn").eval()
    model.load_state_dict({k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")})
    isnet = ISNet(model, "dual", dual_target="sum", input_rule="zbox" if rule == "dual_zb" else "gradient")
    explanation = isnet.explain(arrays["x"])
    assert distance(explanation.logits, arrays["logits"]) < 1e-5
    for index in (0, 1):
        assert distance(explanation.relevance[:, index], arrays[f"{rule}/heatmap"][:, index]) < 1e-5
    if rule == "dual_zb":
        return
    explanation.relevance.square().sum().backward()
    for parameter, value in model.named_parameters():
        gradient = arrays[f"dual/grad/{parameter}"]
        if gradient.shape == ():
            assert value.grad is None or float(value.grad.abs().max()) < 1e-6
        else:
            assert distance(value.grad, gradient) < 1e-4, parameter


class Residual(nn.Module):
    """A sum of two branches, batch norm on its own, a grouped convolution, both kinds of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.alone = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x + self.conv2(self.alone(x)), 2).relu()
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


NETWORKS = {
    "plain": lambda: sequential(False),
    "batch norm": lambda: sequential(True),
    "residual": Residual,
}
DOUBLE = torch.float64


def network(name: str, train: bool) -> nn.Module:
    torch.manual_seed(4)
    model = NETWORKS[name]().to(DOUBLE)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.train(train)


def scene() -> tuple[Tensor, Tensor]:
    mask = torch.zeros(2, 1, 12, 12, dtype=DOUBLE)
    mask[0, :, 2:8, 3:9] = 1
    mask[1, :, 5:, :7] = 1
    return torch.rand(2, 3, 12, 12, dtype=DOUBLE, generator=torch.Generator().manual_seed(2)), mask


def assert_differences(checks: list[Derivative]) -> None:
    assert max(abs(check.exact) for check in checks) > 1e-3
    assert_agree(checks, floor=1e-6)


@pytest.mark.parametrize("rule", ["gradient", "zbox"])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", NETWORKS)
def test_heatmap_loss_s_gradient_to_weights_is_finite_difference(name, train, rule):
    """To all parameters but the biases (and batch norm's shifts), which the relevance pass takes for constants."""
    model, (image, mask) = network(name, train), scene()
    isnet = ISNet(model, "dual", dual_target="sum", input_rule=rule, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))
    criterion = ISNetLoss(relevance_range=(0.5, 3.0))

    def function() -> Tensor:
        return criterion(isnet.explain(image).relevance, mask)

    weights = {n: p for n, p in model.named_parameters() if not n.endswith("bias")}
    grads = dict(zip(weights, torch.autograd.grad(function(), list(weights.values())), strict=True))
    assert_differences(derivatives(function, weights.items(), grads, steps=STEPS, directions=2))


class Reference:
    """Both heatmaps of the plain network, layer by layer; biases are constants of the rules, the activations see them.

    Differences of this function are what the gradient to a bias means: the part that flows through the activations.
    """

    def __init__(self, model: nn.Sequential, epsilon: float) -> None:
        self.model, self.epsilon = model, epsilon
        self.constants = {m: m.bias.detach().clone() for m in model if isinstance(m, (nn.Conv2d, nn.Linear))}

    def __call__(self, image: Tensor) -> Tensor:
        entered, value = [], image
        for module in self.model:
            entered.append(value)
            value = F.relu(value) if isinstance(module, nn.ReLU) else module(value)
        return torch.stack([self._map(entered, value, positive) for positive in (True, False)], 1)

    def _map(self, entered: list[Tensor], logits: Tensor, positive: bool) -> Tensor:
        relevance: Tensor | None = None
        for module, a in zip(reversed(self.model), reversed(entered), strict=True):
            if module in self.constants:
                z, weight = self._rule(module, a, positive)
                relevance = z if relevance is None else relevance  # the output layer's is its own z
                relevance = a * self._back(module, relevance / self._stable(z), weight, a)
            elif isinstance(module, nn.MaxPool2d):
                assert relevance is not None
                top, place = F.max_pool2d(a, 2, return_indices=True)
                relevance = a * F.max_unpool2d(relevance / self._stable(top), place, 2)
            elif isinstance(module, nn.Flatten):
                assert relevance is not None
                relevance = relevance.view_as(a)
        assert relevance is not None
        return relevance

    def _rule(self, module: nn.Module, a: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
        weight, bias = module.weight, self.constants[module]
        if positive:
            weight, bias = weight.clamp(min=0), bias.clamp(min=0)
        return (F.linear(a, weight, bias) if weight.ndim == 2 else F.conv2d(a, weight, bias, padding=1)), weight

    @staticmethod
    def _back(module: nn.Module, s: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        return s @ weight if weight.ndim == 2 else F.conv_transpose2d(s, weight, padding=1)

    def _stable(self, z: Tensor) -> Tensor:
        return torch.where(z >= 0, z + self.epsilon, z - self.epsilon)


def test_heatmaps_and_gradients_are_those_of_a_slow_layerwise_reading():
    """Also the gradient to the biases, against differences of the function in which the rules keep the old ones."""
    model, (image, mask) = network("plain", True), scene()
    reference, criterion = Reference(model, 1e-2), ISNetLoss(relevance_range=(0.5, 3.0))
    relevance = ISNet(model, "dual", dual_target="sum", epsilon=1e-2).explain(image).relevance
    torch.testing.assert_close(relevance, reference(image), rtol=1e-9, atol=1e-12)
    names = [name for name, _ in model.named_parameters()]
    values = torch.autograd.grad(criterion(relevance, mask), list(model.parameters()), allow_unused=True)
    grads = {
        n: torch.zeros_like(model.get_parameter(n)) if g is None else g for n, g in zip(names, values, strict=True)
    }
    assert all(
        float(g.abs().max()) > 0 for n, g in grads.items() if n != "10.bias"
    )  # the last bias meets no activation
    parameters = model.named_parameters()
    assert_differences(
        derivatives(lambda: criterion(reference(image), mask), parameters, grads, steps=STEPS, directions=2)
    )


def test_contrast_explains_all_logits_with_random_signs():
    torch.manual_seed(0)
    model, image = sequential(True).eval(), torch.rand(6, 3, 12, 12)
    isnet = ISNet(model, "dual", dual_target="contrast")
    explanation = isnet.explain(image, generator=torch.Generator().manual_seed(3))
    signs = contrast_signs(torch.zeros(6, 5), torch.Generator().manual_seed(3))
    assert len(signs.unique(dim=0)) > 1
    plain = ISNet(model, "dual", dual_target="sum")
    torch.testing.assert_close(explanation.relevance[:, 0], plain.explain(image).relevance[:, 0])
    torch.testing.assert_close(explanation.relevance[:, 1], plain.explain(image, signs).relevance[:, 1])
    with pytest.raises(ValueError, match="dual_target: expected"):
        ISNet(model, "dual", dual_target="difference")


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_signs_of_a_contrast_are_fair_and_never_all_the_same(classes):
    signs = contrast_signs(torch.zeros(4000, classes, dtype=torch.float64), torch.Generator().manual_seed(0))
    assert signs.dtype == torch.float64
    assert sorted(signs.unique().tolist()) == [-1, 1]
    assert float(signs.mean(0).abs().max()) < 0.06  # four standard errors
    assert classes == 1 or float(signs.sum(1).abs().max()) < classes


@pytest.mark.parametrize("attribution", ["lrp", "gradient"])
def test_what_cancels_in_the_sum_is_seen_in_the_contrast(attribution):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():  # the first pixel raises one logit as much as it lowers the other
        model[1].weight.copy_(torch.tensor([[1.0, 0.5, 0, 0], [-1.0, 0, 0.5, 0]]))
    image = torch.ones(64, 1, 2, 2)
    options = {"attribution": attribution, "epsilon": 1e-30}
    epsilon = {
        target: ISNet(model, "dual", dual_target=target, **options).explain(image).relevance
        for target in ("sum", "contrast")
    }
    assert float(epsilon["sum"][:, 1, 0, 0, 0].abs().max()) == 0
    assert epsilon["contrast"][:, 1, 0, 0, 0].abs().unique().tolist() == [2.0]


class Embedded(nn.Module):
    """Patches with a position embedding, then residual blocks with layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 5)
        self.position = nn.Parameter(torch.rand(1, 6, 4, 4))
        self.mix = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
        self.gamma = nn.ParameterList(nn.Parameter(torch.rand(6)) for _ in range(2))

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch(image) + self.position.flip(0)
        for mix, gamma in zip(self.mix, self.gamma, strict=True):
            x = x + mix(x).relu() * gamma.view(1, -1, 1, 1)
        return self.head(x.mean((2, 3)))


def test_a_batch_of_one_is_explained_as_in_a_larger_one():
    torch.manual_seed(0)
    model, image = Embedded().double().eval(), torch.rand(3, 3, 16, 16, dtype=torch.float64)
    isnet = ISNet(model, "dual", dual_target="sum")
    together = isnet.explain(image).relevance
    alone = torch.cat([isnet.explain(one).relevance for one in image.split(1)])
    torch.testing.assert_close(alone, together)


def test_freezing_a_model_does_not_change_its_heatmaps():
    torch.manual_seed(0)
    model, image = Embedded().double().eval(), torch.rand(3, 3, 16, 16, dtype=torch.float64)
    isnet = ISNet(model, "dual", dual_target="sum")
    trainable = isnet.explain(image).relevance
    torch.testing.assert_close(isnet.explain(image, create_graph=False).relevance, trainable)
    model.requires_grad_(False)
    torch.testing.assert_close(isnet.explain(image, create_graph=False).relevance, trainable)
