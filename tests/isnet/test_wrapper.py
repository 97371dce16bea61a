"""ISNet's manners as a guest in somebody's model, what it explains, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from isnet_networks import distance, picture, small
from torch import Tensor, nn

from torch_bgdebias import ISNet
from torch_bgdebias.isnet import Explanation, Rules


def snapshot(model: nn.Module) -> dict[str, object]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "parameters": [id(p) for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "hooks": [[len(getattr(m, h)) for h in hooks] for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "forward": [m.__class__.forward for m in model.modules()],
        "training": [m.training for m in model.modules()],
        "modes": torch.overrides._get_current_function_mode_stack(),
    }


def assert_untouched(before: dict[str, object], model: nn.Module) -> None:
    after = snapshot(model)
    for key, value in before.pop("state").items():
        assert torch.equal(value, after["state"][key]), key
    after.pop("state")
    assert before == after


@pytest.mark.parametrize("variant", ["selective", "stochastic", "dual", "original"])
@pytest.mark.parametrize("rule", ["gradient", "zbox"])
def test_the_model_is_left_as_found(variant, rule):
    model = small()
    model.bn2.eval()  # a frozen layer in a model that trains
    model.conv1.register_forward_hook(lambda *_: None)
    model.fc.weight.requires_grad_(False)
    model.eval()
    x = picture()
    expected = model(x)
    before = snapshot(model)
    isnet = ISNet(model, variant, dual_target="sum", input_rule=rule, deep_supervision=["conv2"])
    assert isnet.model is model
    isnet.explain(x)
    with pytest.raises(RuntimeError, match="stop"), isnet.watching():
        model(x)
        raise RuntimeError("stop")
    handle = model.fc.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        isnet.explain(x)
    handle.remove()
    with pytest.raises(ValueError, match="target"):
        isnet.explain(x, torch.tensor([1]))
    del isnet
    assert_untouched(before, model)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize(("variant", "maps"), [("selective", 1), ("stochastic", 1), ("dual", 2), ("original", 5)])
@pytest.mark.parametrize("attribution", ["lrp", "gradient"])
@pytest.mark.parametrize("batch", [1, 3])
def test_shapes(variant, maps, attribution, batch):
    model = small().eval()
    isnet = ISNet(model, variant, dual_target="sum", attribution=attribution, deep_supervision=["conv1", "bn2"])
    explanation = isnet.explain(picture(batch))
    assert explanation.logits.shape == (batch, 5)
    assert explanation.relevance.shape == (batch, maps, 3, 12, 10)
    assert explanation.hidden["conv1"].shape == (batch, maps, 6, 12, 10)
    assert explanation.hidden["bn2"].shape == (batch, maps, 12, 6, 5)
    assert torch.equal(isnet(picture(batch)), model(picture(batch)))


def test_relevance_without_and_in_inference_mode():
    isnet, x = ISNet(small().eval()), picture()
    expected = isnet.explain(x)
    assert expected.relevance.requires_grad
    assert not isnet.explain(x, create_graph=False).relevance.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(isnet.explain(x).relevance, expected.relevance.detach())
    with torch.inference_mode():
        explanation = isnet.explain(x.clone())
        assert not explanation.relevance.requires_grad
    torch.testing.assert_close(explanation.relevance, expected.relevance.detach())
    assert not explanation.relevance.is_inference()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", ["selective", "dual"])
@pytest.mark.parametrize("rule", ["gradient", "zbox"])
def test_autocast_gives_float32_relevance_near_the_exact(dtype, variant, rule):
    isnet, x = ISNet(small(), variant, dual_target="sum", input_rule=rule, deep_supervision=["bn1"]), picture()
    exact = isnet.explain(x, torch.tensor([1, 2, 0]))
    with torch.autocast("cpu", dtype):
        explanation = isnet.explain(x, torch.tensor([1, 2, 0]))
    assert explanation.relevance.dtype == torch.float32
    assert explanation.hidden["bn1"].dtype == torch.float32
    assert distance(explanation.relevance, exact.relevance.detach()) < 0.15
    explanation.relevance.abs().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in isnet.model.parameters() if p.grad is not None)


class Wrapped(nn.Module):
    def __init__(self, pack) -> None:
        super().__init__()
        self.inner, self.pack = small(), pack

    def forward(self, x: Tensor) -> object:
        return self.pack(self.inner(x))


@pytest.mark.parametrize(
    ("pack", "key"),
    [
        (lambda z: (z, z * 2), 0),
        (lambda z: {"aux": z * 2, "logits": z}, None),
        (lambda z: {"out": z}, "out"),
        (lambda z: [z], lambda output: output[0]),
    ],
)
def test_outputs_that_are_no_tensor(pack, key):
    isnet, x = ISNet(Wrapped(pack).eval(), logits=key), picture()
    expected = ISNet(isnet.model.inner).explain(x)
    torch.testing.assert_close(isnet.explain(x).relevance, expected.relevance)
    torch.testing.assert_close(isnet(x), expected.logits)


class Gated(nn.Module):
    """Experts, and what a gate makes of their detached answers."""

    def __init__(self):
        super().__init__()
        self.experts, self.gate = nn.ModuleList([small(), small()]), small()

    def forward(self, image):
        experts = torch.stack([expert(image) for expert in self.experts], 1)
        weights = self.gate(image)[:, :2].softmax(1)
        return experts, (experts.detach() * weights[..., None]).sum(1)


def test_refusals_name_what_is_wrong():
    x = picture()
    with pytest.raises(TypeError, match="no logits at None"):
        ISNet(Wrapped(lambda z: (z, z))).explain(x)
    with pytest.raises(ValueError, match=r"expected logits \(B, K\)"):
        ISNet(nn.Conv2d(3, 2, 3)).explain(x)
    with pytest.raises(RuntimeError, match="no gradient path from the model's output to the image"):
        ISNet(Wrapped(lambda z: z.detach())).explain(x)
    with pytest.raises(RuntimeError, match="pass logits, not probabilities"):
        ISNet(Wrapped(lambda z: z.softmax(1))).explain(x)
    gated = Gated()
    with pytest.raises(RuntimeError, match=r"a gate's softmax weighs answers that are detached.*\(logits=...\)"):
        ISNet(gated, logits=1).explain(x)
    assert ISNet(gated, logits=lambda output: output[0][:, 0]).explain(x).relevance.abs().sum() > 0
    with pytest.raises(ValueError, match="variant: expected one of"):
        ISNet(small(), "dial")
    with pytest.raises(ValueError, match="epsilon: expected a number >= 0"):
        ISNet(small(), epsilon=-1)
    with pytest.raises(ValueError, match="epsilon: expected a number >= 0"):
        ISNet(small(), epsilon=float("nan"))
    with pytest.raises(ValueError, match="epsilon: expected a number > 0 for the dual variant, got 0: .* NaN"):
        ISNet(small(), "dual", epsilon=0)
    with pytest.raises(TypeError, match="variant: a Rules object holds all options; pass them to it"):
        ISNet(small(), Rules("dual"), epsilon=0.1)
    with pytest.raises(AttributeError, match="epsilon"):
        ISNet(small()).epsilon = 0.1
    with pytest.raises(
        TypeError, match="deep_supervision: expected a list of layer names, or 'last-stage', got the string 'conv'"
    ):
        ISNet(small(), deep_supervision="conv")
    with pytest.raises(TypeError, match="target: expected a tensor of classes"):
        ISNet(small()).explain(x, 1)
    with pytest.raises(ValueError, match="input_rule"):
        ISNet(small(), input_rule="z")
    with pytest.raises(ValueError, match="batch_norm"):
        ISNet(small(), batch_norm="none")
    with pytest.raises(ValueError, match="selective_eps"):
        ISNet(small(), selective_eps=0.0)
    with pytest.raises(ValueError, match="std: expected positive"):
        ISNet(small(), std=(1.0, 0.0, 1.0))
    with pytest.raises(TypeError, match=r"model: expected an nn\.Module"):
        ISNet(lambda x: x)
    with pytest.raises(LookupError, match="near names: conv"):
        ISNet(small(), deep_supervision=["conv"])
    with pytest.raises(ValueError, match="layer 'fc' must return maps"):
        ISNet(small(), deep_supervision=["fc"]).explain(x)
    with pytest.raises(TypeError, match="image: expected a floating point"):
        ISNet(small()).explain((x * 255).byte())
    with pytest.raises(ValueError, match="target: expected classes in"):
        ISNet(small()).explain(x, torch.tensor([0, 1, 5]))
    with pytest.raises(RuntimeError, match="no linear or convolution layer of Sequential takes the image itself"):
        ISNet(nn.Sequential(nn.ReLU(), small()), input_rule="zbox").explain(x)


def test_relevance_that_is_not_finite_is_named():
    model = small(norm=False)
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"relevance: expected finite values, got NaN or infinity in sample\(s\)"):
        ISNet(model).explain(picture())


def test_relevance_does_not_depend_on_neighbours_in_evaluation_mode():
    isnet, x = ISNet(small().eval()), picture()
    torch.testing.assert_close(isnet.explain(x).relevance[:1], isnet.explain(x[:1]).relevance)


def test_images_that_require_gradients_keep_them():
    isnet = ISNet(small().double().eval())
    source = picture().double().requires_grad_()
    target = torch.tensor([0, 1, 2])

    def function(x: Tensor) -> Tensor:
        return isnet.explain(x * 2, target).relevance.square().sum()

    (grad,) = torch.autograd.grad(function(source), source)
    direction, step = torch.randn_like(source), 1e-6
    high, low = (float(function(source.detach() + s * step * direction).detach()) for s in (1, -1))
    assert float((grad * direction).sum()) == pytest.approx((high - low) / (2 * step), rel=1e-4)


def test_a_training_step_leaves_no_gradient_on_the_image():
    isnet, x = ISNet(small()), picture()
    explanation = isnet.explain(x)
    (explanation.relevance.sum() + explanation.logits.sum()).backward()
    assert x.grad is None
    assert not x.requires_grad


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 looks into no compiled module")
def test_compiled_models_run_as_the_original_with_a_warning():
    model = small().eval()
    compiled = torch.compile(model, backend="eager")
    with pytest.warns(UserWarning, match="Plain is compiled, which cannot be differentiated twice"):
        explanation = ISNet(compiled).explain(picture())
    torch.testing.assert_close(explanation.relevance, ISNet(model).explain(picture()).relevance)


def test_zennit_is_not_needed():
    import subprocess
    import sys

    code = (
        "import sys, torch; sys.modules['zennit'] = None\n"
        "from torch import nn; from torch_bgdebias import ISNet\n"
        "model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))\n"
        "ISNet(model).explain(torch.rand(2, 3, 8, 8))\n"
        "assert not [m for m in sys.modules if m.startswith(('torchvision', 'timm', 'pytorch_lightning'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_flex_composite_and_isnet_agree():
    pytest.importorskip("zennit")
    from torch_bgdebias.lrp import FlexComposite, relevance

    model, x, label = small(), picture(), torch.tensor([1, 0, 4])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    results = []
    for explain in (
        lambda: ISNet(model, epsilon=0.05).explain(x, label),
        lambda: Explanation(*relevance(model, x, label, FlexComposite(0.05))),
    ):
        model.load_state_dict(state)
        explanation = explain()
        grads = torch.autograd.grad(explanation.relevance.square().sum(), list(model.parameters()), allow_unused=True)
        results.append([explanation.logits, explanation.relevance, *grads])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)
