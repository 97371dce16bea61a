"""The layer to blame is named: no second derivative, or relevance that is not finite. Nothing is left behind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from torch_bgdebias import ISNet


class OnceDouble(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * 2


class NumpyDouble(OnceDouble):
    """Its backward cannot even run while a graph is made of it."""

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return torch.from_numpy(grad.numpy() * 2)


class Odd(nn.Module):
    """Some operation as a layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Block(nn.Module):
    """Two branches from one input, of which one may be at fault; activations in place."""

    def __init__(self, odd: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.odd = odd

    def forward(self, x: Tensor) -> Tensor:
        y = self.odd(x)
        z = self.bn(self.conv(x))
        z += y
        return self.relu(z)


class Net(nn.Module):
    def __init__(self, odd: nn.Module, after=lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Block(nn.Conv2d(4, 4, 1)), Block(odd), Block(nn.Dropout(0.5))])
        self.head = nn.Linear(4, 5)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.after(x).mean((2, 3)))


def picture() -> Tensor:
    return torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


REFUSED = {
    "once": (OnceDouble.apply, "twice a function that was marked with @once_differentiable"),
    "missing": (torch.ops.aten.hardsigmoid, "derivative for aten::hardsigmoid_backward is not implemented"),
    "numpy": (NumpyDouble.apply, "Can't call numpy"),
}


@pytest.mark.parametrize("variant", ["selective", "stochastic", "dual", "original"])
@pytest.mark.parametrize("case", REFUSED)
def test_layer_without_second_derivative_is_named(case, variant):
    function, reason = REFUSED[case]
    isnet = ISNet(Net(nn.Sequential(nn.Conv2d(4, 4, 1), Odd(function))), variant, dual_target="sum")
    expected = rf"layer 'blocks\.1\.odd\.1' \(Odd\) cannot be differentiated twice.*{reason}.*create_graph=False"
    with pytest.raises(RuntimeError, match=expected):
        isnet.explain(picture())
    with pytest.raises(RuntimeError, match=expected), isnet.watching() as watch:
        isnet.model(picture())
        watch.explain()
    assert torch.isfinite(isnet.explain(picture(), create_graph=False).relevance).all()


def test_without_the_name_torch_s_own_error_comes_late():
    """What the search is for: the relevance itself raises nothing."""
    model, x = Net(Odd(OnceDouble.apply)), picture().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_operation_between_the_layers_is_the_models_own():
    with pytest.raises(RuntimeError, match="the forward of Net itself cannot be differentiated twice"):
        ISNet(Net(nn.Identity(), after=OnceDouble.apply)).explain(picture())


def test_layer_that_no_pass_can_cross_is_named():
    class Broken(OnceDouble):
        @staticmethod
        def backward(ctx, grad: Tensor) -> Tensor:
            raise RuntimeError("no way back")

    isnet = ISNet(Net(Odd(Broken.apply)))
    with pytest.raises(RuntimeError, match=r"layer 'blocks\.1\.odd' \(Odd\) cannot be differentiated: no way back"):
        isnet.explain(picture(), create_graph=False)


def test_operation_with_several_inputs_is_named():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch._C.DisableTorchFunction(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return F.scaled_dot_product_attention(x, x, x)

    with pytest.raises(RuntimeError, match=r"layer 'blocks\.1\.odd' \(Attention\)"):
        ISNet(Net(Attention())).explain(picture())


@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_refused(reentrant, create_graph):
    class Saving(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = checkpoint(self.blocks[0], self.stem(x), use_reentrant=reentrant)
            return self.head(x.mean((2, 3)))

    layer = "the forward of Saving itself" if reentrant else r"layer 'blocks\.0\.\w+' \(\w+\)"
    expected = rf"^{layer} runs again in the backward pass.*switch gradient checkpointing off"
    with pytest.raises(RuntimeError, match=expected):
        ISNet(Saving(nn.Identity())).explain(picture(), create_graph=create_graph)


@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated")
def test_operations_that_no_rule_reaches_are_refused():
    block, x = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), torch.rand(2, 4, 6, 6)
    isnet = ISNet(Net(block).eval())
    kinds = {
        "scripted": torch.jit.script(block),
        "scripted, ": torch.jit.trace(block, x),
        "exported": torch.export.export(block, (x,)).module(),
    }
    for kind, layer in kinds.items():
        isnet.model.blocks[1].odd = layer
        with pytest.raises(RuntimeError, match=rf"layer 'blocks\.1\.odd' \(\w+\) is {kind.split(',')[0]}, so that"):
            isnet.explain(picture())
    with pytest.raises(RuntimeError, match=r"the model \(\w+\) is scripted, so that"):
        ISNet(torch.jit.script(nn.Sequential(block))).explain(x)
    isnet.model.blocks[1].odd = torch.fx.symbolic_trace(block)  # Python code again
    isnet.model.blocks[1].conv = nn.Conv2d(4, 4, 3)
    relevance = isnet.explain(picture()).relevance
    isnet.model.blocks[1].odd = block
    torch.testing.assert_close(isnet.explain(picture()).relevance, relevance)


@torch.compile(backend="aot_eager")
def compiled(x: Tensor) -> Tensor:
    return F.gelu(x).relu()


@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated")
@pytest.mark.parametrize("kind", ["torch.jit.script", "torch.compile"])
def test_compiled_functions_are_refused(kind):
    def plain(x: Tensor) -> Tensor:
        return F.gelu(x).relu()

    function = torch.jit.script(plain) if kind == "torch.jit.script" else compiled
    model = Net(nn.Sequential(nn.Conv2d(4, 4, 1), Odd(function)))
    for _ in range(3):  # scripted functions are compiled after they have been looked at
        model(picture())
    isnet = ISNet(model)
    for create_graph in (True, False):
        with pytest.raises(RuntimeError, match=rf"layer 'blocks\.1\.odd\.1' \(Odd\) calls a function under {kind}"):
            isnet.explain(picture(), create_graph=create_graph)
    ISNet(model, attribution="gradient").explain(picture(), create_graph=False)
    with pytest.raises(RuntimeError, match=rf"the forward of Net itself calls a function under {kind}"):
        ISNet(Net(nn.Identity(), after=function)).explain(picture())
    model.blocks[1].odd[1].function = plain
    isnet.explain(picture())
    prepared = function(torch.rand(2, 3, 6, 6, requires_grad=True))  # what came before the model is not its affair
    isnet.explain(prepared)


def test_torchvision_s_operators_are_named():
    ops = pytest.importorskip("torchvision").ops

    class Deformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset, self.layer = nn.Conv2d(4, 18, 3, padding=1), ops.DeformConv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, self.offset(x))

    class Regions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ops.roi_align(x, [torch.tensor([[0.0, 0.0, 5.0, 5.0]])] * len(x), (6, 6))

    cases = {
        "deform_conv2d": (Deformed(), r"odd\.layer' \(DeformConv2d\)"),
        "roi_align": (Regions(), r"odd' \(Regions\)"),
    }
    for name, (odd, layer) in cases.items():
        isnet = ISNet(Net(odd))
        text = rf"layer 'blocks\.1\.{layer} cannot be differentiated twice.*{name} has no second derivative"
        with pytest.raises(RuntimeError, match=text):
            isnet.explain(picture())
        assert torch.isfinite(isnet.explain(picture(), create_graph=False).relevance).all()


def test_errors_that_are_no_layer_s_fault_stay_torch_s():
    isnet = ISNet(Net(nn.Identity()))
    with isnet.watching() as watch:
        logits = isnet.model(picture())
    logits.sum().backward()
    with pytest.raises(RuntimeError, match="^Trying to backward through the graph a second time"):
        watch.explain()


class Root(nn.Module):
    """Finite, with an infinite slope at zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 0).abs().sqrt() + x


@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize("variant", ["selective", "stochastic", "dual", "original"])
def test_layer_where_relevance_becomes_infinite_is_named(variant, create_graph):
    text = r"relevance: expected finite values.*sample\(s\) \[0, 1\]; first in "
    isnet = ISNet(Net(nn.Sequential(nn.Identity(), Root())), variant, dual_target="sum")
    with pytest.raises(ValueError, match=text + r"the relevance that leaves layer 'blocks\.1\.odd\.1' \(Root\)"):
        isnet.explain(picture(), create_graph=create_graph)
    isnet = ISNet(Net(nn.Conv2d(4, 4, 1)), variant, dual_target="sum")
    with torch.no_grad():
        isnet.model.blocks[1].odd.weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match=text + r"the output of layer 'blocks\.1\.odd' \(Conv2d\)"):
        isnet.explain(picture(), create_graph=create_graph)


def test_infinite_relevance_elsewhere():
    image = picture()
    image[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"sample\(s\) \[1\]; the image is not finite"):
        ISNet(Net(nn.Identity()).eval()).explain(image)
    with pytest.raises(ValueError, match="not in any of its layers"):
        ISNet(Net(nn.Identity(), after=Root().forward)).explain(picture(), create_graph=False)
    isnet = ISNet(Net(Root()), deep_supervision=["blocks.1.bn"])
    with pytest.raises(ValueError, match=r"^relevance: .*leaves layer 'blocks\.1\.odd' \(Root\)"):
        isnet.explain(picture())


@pytest.mark.parametrize("odd", [Odd(OnceDouble.apply), Root()], ids=["refused", "infinite"])
def test_the_search_leaves_no_trace(odd):
    """Batch norm has seen the batch once, the random generators have moved on once, and no hook is left."""
    model = Net(odd).train()
    again, x = copy.deepcopy(model), picture()
    torch.manual_seed(3)
    again(x)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    buffers = [id(b) for b in model.buffers()]
    isnet = ISNet(model)
    with isnet.watching() as outer:
        with pytest.raises((RuntimeError, ValueError), match="layer"):
            isnet.explain(x)
        assert len(outer) == 0
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert [id(b) for b in model.buffers()] == buffers
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert all(p.grad is None for p in model.parameters())
    assert torch.overrides._get_current_function_mode_stack() == []


def test_other_arguments_of_the_model_are_given_again():
    class Two(Net):
        def forward(self, x: Tensor, scale: float, *, shift: float) -> Tensor:
            return super().forward(x * scale + shift)

    model = Two(Odd(OnceDouble.apply))
    isnet = ISNet(model)
    with isnet.watching() as watch:
        model(picture(), 2.0, shift=0.5)
    with pytest.raises(RuntimeError, match=r"layer 'blocks\.1\.odd'"):
        watch.explain()


@pytest.mark.parametrize("name", ["flex", "epsilon"])
def test_composites_name_the_layer_too(name):
    rules = pytest.importorskip("zennit.rules")
    from zennit.core import Composite

    from torch_bgdebias.lrp import FlexComposite, relevance

    epsilon = Composite(lambda _, __, m: rules.Epsilon(1e-2) if isinstance(m, (nn.Conv2d, nn.Linear)) else None)
    composite, target = (FlexComposite() if name == "flex" else epsilon), torch.tensor([1, 2])
    with pytest.raises(RuntimeError, match=r"layer 'blocks\.1\.odd' \(Odd\) cannot be differentiated twice.*once_diff"):
        relevance(Net(Odd(OnceDouble.apply)), picture(), target, composite)
    with pytest.raises(RuntimeError, match=r"layer 'blocks\.1\.odd' \(Odd\) cannot be differentiated twice.*numpy"):
        relevance(Net(Odd(NumpyDouble.apply)), picture(), target, composite)
    assert relevance(Net(Odd(OnceDouble.apply)), picture(), target, composite, create_graph=False)[1].isfinite().all()
    with pytest.raises(ValueError, match=r"finite values.*first in the relevance that leaves layer 'blocks\.1\.odd'"):
        relevance(Net(Root()), picture(), target, composite)


def test_training_by_callback_names_the_layer():
    pytest.importorskip("pytorch_lightning")
    import small_training

    from torch_bgdebias.callbacks import ISNetCallback

    module = small_training.Module(Net(Odd(OnceDouble.apply)))
    batches = small_training.loader(picture(), torch.tensor([0, 1]), torch.ones(2, 1, 6, 6))
    with pytest.raises(RuntimeError, match=r"layer 'net\.blocks\.1\.odd' \(Odd\) cannot be differentiated twice"):
        small_training.fit(module, ISNetCallback(), train=batches, max_epochs=1)
