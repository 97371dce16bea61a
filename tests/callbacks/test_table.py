"""Every callback through the same trainings: one table, so that none is left out."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle

import pytest
import small_training as small
import torch
from torch.utils.data.distributed import DistributedSampler

TRAINING, READING, CALLBACKS, PACKAGES = small.TRAINING, small.READING, small.CALLBACKS, small.PACKAGES
VARIED, weights = small.VARIED, small.weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
]


def fit(callbacks, package=PACKAGES[0], module=None, batches=None, ckpt=None, **options):
    module = small.theirs(package) if module is None else module
    run = small.trainer(callbacks, package, **options)
    train = small.loader() if batches is None else batches
    run.fit(module, train, small.loader(), ckpt_path=ckpt, **small.unpickled(run, ckpt))
    return module, run


def left_alone(module) -> bool:
    hooks = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in module.modules())
    return "training_step" not in vars(module) and not hooks


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("bare", [False, True], ids=["in a list", "bare"])
def test_both_packages(name, package, bare):
    callback = CALLBACKS[name]()
    for each in PACKAGES:
        assert isinstance(callback, importlib.import_module(each).Callback)
    module, run = fit(callback if bare else [callback], package)
    assert weights(module).isfinite().all()
    # the other package's trainer makes the same of it
    other, _ = fit([CALLBACKS[name]()], PACKAGES[-1 - PACKAGES.index(package)])
    assert torch.equal(weights(module), weights(other))
    assert any(key.startswith(f"{callback.log_prefix or 'bias'}/") or "/" in key for key in run.callback_metrics)


@pytest.mark.parametrize("name", VARIED)
def test_training_changes_where_it_should_and_nothing_is_left(name):
    plain, _ = fit([])
    module, _ = fit([VARIED[name]()])
    assert set(vars(module)) == set(vars(plain))
    assert list(module.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in module.named_modules()] == [n for n, _ in plain.named_modules()]
    assert [m.training for m in module.modules()] == [m.training for m in plain.modules()]
    assert left_alone(module)
    assert torch.equal(weights(module), weights(plain)) == (name in READING)


@pytest.mark.parametrize("name", CALLBACKS)
def test_the_global_generator_is_left_alone(name):
    torch.manual_seed(3)
    fit([])
    plain = torch.rand(2)
    torch.manual_seed(3)
    fit([CALLBACKS[name]()])
    assert torch.equal(torch.rand(2), plain)


def in_an_order_of_each_epoch():
    """Batches whose order depends on the epoch's number alone."""
    data = torch.utils.data.TensorDataset(*small.tensors())
    return small.loader(data, sampler=DistributedSampler(data, num_replicas=1, rank=0, seed=3))


@pytest.mark.parametrize("name", VARIED)
def test_resuming_goes_on_as_if_nothing_had_happened(name, tmp_path):
    def fitted(epochs, ckpt=None):
        callback = VARIED[name]()
        return callback, *fit([callback], batches=in_an_order_of_each_epoch(), max_epochs=epochs, ckpt=ckpt)

    uninterrupted, whole, _ = fitted(4)
    _, first, run = fitted(2)
    run.save_checkpoint(tmp_path / "half.ckpt")
    torch.rand(5)  # the global generator may be anywhere
    resumed, second, run = fitted(4, tmp_path / "half.ckpt")
    assert run.global_step == 12
    assert first.totals + second.totals == whole.totals
    assert torch.equal(weights(second), weights(whole))
    if name not in READING:
        assert resumed.steps == uninterrupted.steps == 12
        assert_equal_states(resumed.state_dict(), uninterrupted.state_dict())


def assert_equal_states(one, other):
    """Of nested dicts, with tensors among them."""
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_second_fit_is_as_the_first(name):
    callback = CALLBACKS[name]()
    first, _ = fit([callback])
    second, _ = fit([callback])
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("name", TRAINING)
def test_a_trainer_that_goes_on_counts_on(name):
    callback = TRAINING[name]()
    module, run = fit([callback])
    assert callback.steps == 6
    run.fit_loop.max_epochs = 4
    run.fit(module, small.loader())
    assert callback.steps == 12


class Stop(Exception):
    """The user's own error."""


def failing(after: int, error=Stop):
    def training_step(self, batch, batch_idx):
        if batch_idx == after:
            raise error("the user's own error")
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    return small.theirs(training_step=training_step)


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_the_step_is_back_after_an_exception(name, error):
    module, callback = failing(1, error), VARIED[name]()
    with pytest.raises(SystemExit if error is KeyboardInterrupt else Stop):
        fit([callback], module=module)
    assert left_alone(module)
    again, _ = fit([callback])  # and it can be used again
    assert weights(again).isfinite().all()


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_batch_end", "teardown"])
def test_the_step_is_back_after_an_error_in_another_callback(name, hook):
    def fail(*args, **kwargs):
        raise Stop(hook)

    Other = type("Other", (importlib.import_module(PACKAGES[0]).Callback,), {hook: fail})
    for order in (1, -1):
        module = small.theirs()
        with pytest.raises(Stop):
            fit([CALLBACKS[name](), Other()][::order], module=module)
        assert left_alone(module)


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_start", "on_train_batch_start", "on_train_epoch_end"])
def test_the_step_is_back_after_ctrl_c_between_hooks(name, hook):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt(hook)

    Other = type("Other", (importlib.import_module(PACKAGES[0]).Callback,), {hook: interrupt})
    module = small.theirs()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit([TRAINING[name](), Other()], module=module)
    assert left_alone(module)


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("method", ["setup_environment", "setup", "model_to_device", "teardown"])
def test_the_step_is_back_after_an_error_of_the_strategy(name, method):
    def fail(*args, **kwargs):
        raise Stop(method)

    module = small.theirs()
    run = small.trainer([TRAINING[name]()])
    setattr(run.strategy, method, fail)
    with pytest.raises(Stop):
        run.fit(module, small.loader())
    assert left_alone(module)
    assert method == "teardown" or "teardown" not in vars(run.strategy)


TUNED = {
    "lr_find": {"num_training": 4, "update_attr": False},
    "scale_batch_size": {"max_trials": 1, "steps_per_trial": 2},
}


def with_own_loader(step=None):
    def batches(self):
        return small.loader(batch_size=self.batch_size)

    methods = {"train_dataloader": batches, "val_dataloader": batches}
    return small.theirs(**methods, **({"training_step": step} if step else {}))


def tune(callbacks, module, method):
    run = small.trainer(callbacks)
    getattr(importlib.import_module(f"{PACKAGES[0]}.tuner").Tuner(run), method)(module, **TUNED[method])
    return run


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("method", TUNED)
def test_tuners(name, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, callback = with_own_loader(), CALLBACKS[name]()
    start = weights(module)
    run = tune([callback], module, method)
    assert left_alone(module)
    assert torch.equal(weights(module), start)
    # and a fit afterwards is as one without tuning
    module.batch_size = 8
    run.fit(module, small.loader())
    plain, _ = fit([CALLBACKS[name]()])
    assert torch.allclose(weights(module), weights(plain))


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("method", TUNED)
def test_the_step_is_back_after_an_exception_in_a_tuner(name, method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            raise Stop("the user's own error")
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    module = with_own_loader(training_step)
    with pytest.raises(Stop):
        tune([CALLBACKS[name]()], module, method)
    assert left_alone(module)


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("order", [1, -1], ids=["before", "after"])
def test_the_finder_as_a_callback(name, order, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder = importlib.import_module(f"{PACKAGES[0]}.callbacks").LearningRateFinder
    callback, module = CALLBACKS[name](), with_own_loader()
    run = small.trainer([finder(num_training_steps=4, update_attr=False), callback][::order])
    module.batch_size = 8
    run.fit(module)
    assert left_alone(module)
    assert torch.allclose(weights(module), weights(fit([CALLBACKS[name]()])[0]))
    if name in TRAINING:
        assert callback.steps == 6


@pytest.mark.parametrize("name", TRAINING)
def test_a_trainer_that_is_dropped_gives_the_step_back(name):
    module, callback = small.theirs(), TRAINING[name]()
    run = small.trainer([callback])
    run.strategy.connect(module)
    callback.setup(run, module, "fit")
    assert "training_step" in vars(module)
    del run
    gc.collect()
    assert left_alone(module)


@pytest.mark.parametrize("name", TRAINING)
def test_a_change_of_another_trainer_does_not_act(name):
    """Should every hook have failed: the next fit of the module is the user's own."""
    module, callback = small.theirs(), TRAINING[name]()
    run = small.trainer([callback])
    callback.setup(run, module, "fit")
    fit([], module=module)
    assert torch.equal(weights(module), weights(fit([])[0]))
    assert left_alone(module)


@pytest.mark.parametrize("name", TRAINING)
def test_a_strategy_gets_its_own_method_back(name):
    _, run = fit([TRAINING[name]()])
    assert "teardown" not in vars(run.strategy)


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_can_be_copied_and_pickled(name):
    callback = CALLBACKS[name]()
    if name != "isnet":  # holds a function that cannot be pickled
        pickle.loads(pickle.dumps(callback))
    assert copy.deepcopy(callback).state_key == callback.state_key


@pytest.mark.parametrize("name", CALLBACKS)
def test_several_of_a_kind_keep_their_names_and_states_apart(name):
    callbacks = [CALLBACKS[name](), CALLBACKS[name](seed=1)] if name != "concepts" else [CALLBACKS[name]()]
    _, run = fit(callbacks)
    assert len({callback.state_key for callback in callbacks}) == len(callbacks)
    if name in TRAINING:
        logged = {key for key in run.callback_metrics if "/" in key}
        prefix = callbacks[0].log_prefix
        assert {key.replace(f"{prefix}_2/", f"{prefix}/") for key in logged if f"{prefix}_2/" in key} == {
            key for key in logged if key.startswith(f"{prefix}/")
        }


@pytest.mark.parametrize("name", TRAINING)
def test_nothing_is_logged_when_not_wanted(name):
    _, run = fit([TRAINING[name](log=False)])
    assert list(run.callback_metrics) == ["val_loss"]  # the user's own
    _, run = fit([TRAINING[name](log="mine")])
    assert {key.split("/")[0] for key in run.callback_metrics if "/" in key} == {"mine"}


@pytest.mark.parametrize("name", TRAINING)
def test_a_step_that_fetches_its_own_batches_is_refused(name):
    def training_step(self, dataloader_iter):
        return None

    with pytest.raises(TypeError, match="takes a dataloader_iter and fetches its batches itself"):
        fit([TRAINING[name]()], module=small.theirs(training_step=training_step))


@pytest.mark.parametrize("name", TRAINING)
def test_manual_optimisation(name):
    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()

    module = small.theirs(training_step=training_step)
    module.automatic_optimization = False
    if name == "swap":  # changes the batch alone
        fit([TRAINING[name]()], module=module)
        return
    instead = {"clad": "CLADLoss", "isnet": "ISNet and ISNetLoss"}[name]
    with pytest.raises(TypeError, match=f"Theirs optimises manually, so there is no loss to add to: use {instead} in "):
        fit([TRAINING[name]()], module=module)
    assert left_alone(module)
