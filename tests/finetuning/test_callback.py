"""Lower stages fixed for the length of a fit."""

from __future__ import annotations

import pytest
import small_training as small
import torch
from small_training import PACKAGES, theirs, trainer
from torch import nn

from torch_bgdebias import BackgroundSwap
from torch_bgdebias.callbacks import BackgroundSwapCallback, FreezeLowerStages, ISNetCallback

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def fit(callbacks, package=PACKAGES[0], module=None, **options):
    module = theirs(package) if module is None else module
    run = trainer(callbacks, package, **options)
    run.fit(module, small.loader(), small.loader())
    return module


def changed(module, package=PACKAGES[0]) -> set[str]:
    start = theirs(package).state_dict()
    return {name for name, value in module.state_dict().items() if not torch.equal(value, start[name])}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_fit_leaves_the_lower_stages_alone(package):
    assert changed(fit([FreezeLowerStages("net.5")], package), package) == {"net.5.weight", "net.5.bias"}
    assert "net.0.weight" in changed(fit([], package), package)


@pytest.mark.parametrize("beside", [
    lambda: BackgroundSwapCallback(BackgroundSwap()),
    lambda: ISNetCallback(deep_supervision=["net.2"], at_input=False),
])  # fmt: skip
def test_beside_the_other_callbacks(beside):
    module = fit([FreezeLowerStages("net.5"), beside()])
    assert changed(module) == {"net.5.weight", "net.5.bias"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_everything_trains_again_afterwards_also_after_an_error():
    def training_step(self, batch, batch_idx):
        assert not self.net[0].weight.requires_grad
        raise RuntimeError("the user's own")

    module = theirs(training_step=training_step)
    with pytest.raises(RuntimeError, match="the user's own"):
        fit([FreezeLowerStages("net.5")], module=module)
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(m._forward_pre_hooks for m in module.modules())
    callback = FreezeLowerStages("net.5")
    for _ in range(2):
        module = fit([callback])
        assert callback.stages is None
        assert all(parameter.requires_grad for parameter in module.parameters())


def test_layers_made_in_configure_model():
    module = theirs()
    net, module.net = module.net, None

    def configure_model():
        if module.net is None:
            module.net = net

    module.configure_model = configure_model
    module.configure_optimizers = lambda: torch.optim.SGD(net.parameters(), 0.05)
    assert changed(fit([FreezeLowerStages("net.5")], module=module)) == {"net.5.weight", "net.5.bias"}


def test_a_layer_that_is_not_there():
    with pytest.raises(LookupError, match=r"until: layer 'net.9' is not in Theirs; near names: net.5"):
        fit([FreezeLowerStages("net.9")])


def halving():
    """A module whose network has two stages."""
    module = theirs()
    torch.manual_seed(3)
    module.net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(2),
        nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    return module


def test_without_a_name_the_last_stage_trains_and_isnet_explains_what_enters_it():
    start = halving().state_dict()
    callback = ISNetCallback.finetuning("stochastic")
    assert callback.state_key == ISNetCallback("stochastic", deep_supervision="last-stage", at_input=False).state_key
    module = fit([FreezeLowerStages(), callback], module=halving())
    by_name = fit(
        [FreezeLowerStages("net.2"), ISNetCallback("stochastic", deep_supervision=["net.1"], at_input=False)],
        module=halving(),
    )
    state = module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in by_name.state_dict().items())
    changed_names = {name for name, value in state.items() if not torch.equal(value, start[name])}
    assert changed_names == {"net.2.weight", "net.2.bias", "net.6.weight", "net.6.bias"}


def test_a_module_without_stages_is_refused_by_name():
    with pytest.raises(LookupError, match="until: Theirs: "):
        fit([FreezeLowerStages()])
    with pytest.raises(LookupError, match="deep_supervision: 'last-stage': Theirs: "):
        fit([ISNetCallback.finetuning()])
