"""Lightning's own strategies that spread a module's parameters over processes are refused before anything is spread."""

from __future__ import annotations

import importlib

import pytest
import small_training
from small_training import CALLBACKS, PACKAGES, READING

#: what a refusal advises
ADVICE = {True: "measure the saved model, or call evaluate_background_bias", False: "use DDPStrategy"}


def strategies(package: str):
    return importlib.import_module(f"{package}.strategies")


def trainer_under(strategy, package: str):
    """Lightning makes no trainer for FSDP without a GPU: one for the CPU is given the strategy afterwards."""
    trainer = small_training.trainer(None, package)
    trainer._accelerator_connector.strategy = strategy
    assert trainer.strategy is strategy
    return trainer


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("package", PACKAGES)
def test_fsdp_is_refused(package: str, name: str) -> None:
    trainer = trainer_under(strategies(package).FSDPStrategy(process_group_backend="gloo"), package)
    callback, module = CALLBACKS[name](), small_training.theirs(package)
    trainer.callbacks.append(callback)
    own = set(vars(module))
    with pytest.raises(
        TypeError,
        match=f"{type(callback).__name__} cannot work under FSDPStrategy, which spreads .*{ADVICE[name in READING]}",
    ):
        callback.setup(trainer, module, "fit")
    assert set(vars(module)) == own


@pytest.mark.parametrize("package", PACKAGES)
def test_zero_is_refused_where_it_spreads_parameters(package: str) -> None:
    pytest.importorskip("deepspeed")
    deepspeed = strategies(package).DeepSpeedStrategy
    for strategy in (deepspeed(stage=3), deepspeed(config={"train_batch_size": 8, "zero_optimization": {"stage": 3}})):
        for make in CALLBACKS.values():
            trainer, module, callback = trainer_under(strategy, package), small_training.theirs(package), make()
            trainer.callbacks.append(callback)
            with pytest.raises(TypeError, match=f"{type(callback).__name__} cannot work under DeepSpeedStrategy"):
                callback.setup(trainer, module, "fit")
    for strategy in (deepspeed(stage=2), deepspeed(stage=1), deepspeed(config={"train_batch_size": 8})):
        for make in CALLBACKS.values():
            trainer, module, callback = trainer_under(strategy, package), small_training.theirs(package), make()
            trainer.callbacks.append(callback)
            callback.setup(trainer, module, "fit")
            callback.teardown(trainer, module, "fit")
