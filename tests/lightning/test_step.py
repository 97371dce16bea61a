from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import pytorch_lightning as pl
import torch
from small_training import fit, loader
from torch import nn

from torch_bgdebias import lightning as shared


class Theirs(pl.LightningModule):
    """A module as somebody else wrote it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 2)
        self.seen: list[float] = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append(float(x.mean()))
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def adding(amount):
    def change(call):
        x, y = call.batch
        call.batch = (x + amount, y)
        return shared.add_to_loss(call.run(), torch.tensor(float(amount)))

    return change


BATCH = (torch.zeros(3, 4), torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_made_meanwhile_has_the_module_s_own_step(copied):
    """As other callbacks make them (averages of the weights, checkpoints of the whole module)."""
    module = Theirs()
    leave = shared.wrap_training_step(module, module, adding(2))
    twin = copied(module)
    loss = twin.training_step(BATCH, 0)
    assert twin.seen == [0.0]
    assert module.seen == []
    assert float(module.training_step(BATCH, 0)) != pytest.approx(float(loss))
    assert module.seen == [2.0]
    leave()
    assert "training_step" not in vars(module)
    module.training_step = own = Own(2.0)
    leave = shared.wrap_training_step(module, module, adding(2))
    assert float(copied(module).training_step(BATCH, 0)) == 2.0
    leave()
    assert module.training_step is own


class Own:
    """An instance's own step, which can be pickled."""

    def __init__(self, loss: float) -> None:
        self.loss = loss

    def __call__(self, batch, batch_idx):
        return torch.tensor(self.loss)


def test_changes_nest_in_order_and_leave_in_any():
    module = Theirs()
    plain = module.training_step
    first, second = object(), object()
    order: list[str] = []

    def named(name, factor, amount):
        def change(call):
            order.append(name)
            x, y = call.batch
            call.batch = (x * factor + amount, y)
            return call.run()

        return change

    leave_first = shared.wrap_training_step(module, first, named("first", 1, 1))
    leave_second = shared.wrap_training_step(module, second, named("second", 2, 0))
    module.training_step(BATCH, 0)
    assert order == ["first", "second"]
    assert module.seen == [2.0]  # (0 + 1) * 2: the batch went through in the list's order
    leave_first()
    module.training_step(BATCH, batch_idx=0)
    assert module.seen[-1] == 0.0
    leave_second()
    leave_second()
    assert "training_step" not in vars(module)
    assert module.training_step == plain


def test_signature_and_keywords_survive():
    module = Theirs()
    before = inspect.signature(module.training_step)
    leave = shared.wrap_training_step(module, module, adding(3))
    assert inspect.signature(module.training_step) == before
    assert "batch_idx" in inspect.signature(module.training_step).parameters
    module.training_step(batch=BATCH, batch_idx=0)
    assert module.seen == [3.0]
    leave()


def test_the_same_owner_is_replaced_not_stacked():
    module = Theirs()
    owner = object()
    shared.wrap_training_step(module, owner, adding(1))
    leave = shared.wrap_training_step(module, owner, adding(10))
    module.training_step(BATCH, 0)
    assert module.seen == [10.0]
    leave()


def test_an_instance_attribute_of_the_users_comes_back():
    module = Theirs()

    def own(batch, batch_idx):
        return torch.zeros(())

    module.training_step = own
    shared.wrap_training_step(module, module, adding(1))()
    assert module.training_step is own


def test_inside_a_real_fit():
    class Adds(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            self.leave = shared.wrap_training_step(pl_module, self, adding(2))

        def teardown(self, trainer, pl_module, stage):
            self.leave()

    module = Theirs()
    keys = list(module.state_dict())
    fit(module, Adds(), train=loader(torch.zeros(6, 4), torch.zeros(6, dtype=torch.long), batch_size=3), max_epochs=1)
    assert module.seen == [2.0, 2.0]
    assert list(module.state_dict()) == keys
    assert "training_step" not in vars(module)


def test_outputs():
    assert shared.add_to_loss(torch.tensor(2.0), torch.tensor(1.0), weight=0.5) == 2.0
    output = {"loss": torch.tensor(2.0), "logits": 1}
    assert shared.add_to_loss(output, torch.tensor(1.0))["loss"] == 3.0
    assert output["loss"] == 2.0
    with pytest.raises(TypeError, match="expected a loss tensor or a dict with 'loss', got NoneType"):
        shared.add_to_loss(None, torch.tensor(1.0))


def test_gradients_inside_inference_mode():
    with torch.inference_mode():
        outside = torch.rand(3)
        with shared.gradients_allowed():
            x = outside.clone().requires_grad_()
            (x * x).sum().backward()
    assert torch.allclose(x.grad, 2 * outside)


def test_a_step_without_a_batch_is_named():
    module = Theirs()
    leave = shared.wrap_training_step(module, module, adding(1))
    with pytest.raises(TypeError, match="without a batch"):
        module.training_step()
    leave()
