"""What callbacks are made on: when one measures, what its draws depend on, what it is called in the log."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import small_training as small
import torch
from PIL import Image

from torch_bgdebias.backgrounds import StreamedBackgroundBank
from torch_bgdebias.callbacks import BackgroundSwapCallback
from torch_bgdebias.lightning.base import LightningCallback, ReadingCallback, TrainingStepCallback
from torch_bgdebias.swap import BackgroundSwap

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
]


class Reader(ReadingCallback):
    log_prefix = "reader"

    def __init__(self, **options):
        super().__init__(**options)
        self.epochs = []

    def _read(self, trainer, pl_module):
        self.epochs.append(trainer.current_epoch)
        return {}


class Around(TrainingStepCallback):
    log_prefix = "around"

    def _step(self, call):
        return call.run()


def fit(callback, epochs, **options):
    run = small.trainer([callback], max_epochs=epochs, **options)
    run.fit(small.theirs(), small.loader(), small.loader())
    return run


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_a_reader_measures_in_the_first_epoch_and_every_n_th_after(every, expected):
    callback = Reader(every_n_epochs=every)
    fit(callback, 5, num_sanity_val_steps=2)
    assert callback.epochs == expected


def test_a_reader_measures_a_test_whatever_the_epoch():
    callback = Reader(every_n_epochs=3)
    run = fit(callback, 2)
    assert callback.epochs == [0]
    run.test(run.lightning_module, small.loader(), verbose=False)
    assert len(callback.epochs) == 2


@pytest.mark.parametrize("every", [0, -3])
def test_less_than_every_epoch_is_refused(every):
    with pytest.raises(ValueError, match=f"every_n_epochs: expected at least 1, got {every}"):
        Reader(every_n_epochs=every)


def test_a_fit_that_was_never_measured_is_told():
    callback = Reader()
    run = small.trainer([callback], max_epochs=1)
    with pytest.warns(UserWarning, match=r"Reader measured nothing: .* within the first of every 1 epoch\(s\)"):
        run.fit(small.theirs(), small.loader())
    assert callback.epochs == []


def test_draws_depend_on_class_seed_process_and_batch():
    def number(kind=Around, seed=0, rank=0, steps=0):
        callback = kind(seed)
        callback.steps = steps
        return torch.rand((), generator=callback._seeded(SimpleNamespace(global_rank=rank, device="cpu"))).item()

    other = type("Other", (Around,), {})
    numbers = [number(), number(seed=1), number(rank=1), number(steps=1), number(kind=other)]
    assert number() == numbers[0]
    assert len(set(numbers)) == 5


def test_batches_are_counted_and_the_count_is_the_state():
    callback = Around(seed=4)
    fit(callback, 2)
    assert callback.state_dict() == {"steps": 6, "seed": 4}
    fresh = Around()
    fresh.load_state_dict({"steps": 3, "seed": 9})
    assert (fresh.steps, fresh.seed) == (3, 9)
    assert Around().seed == 0


def test_callbacks_of_one_name_are_numbered_in_the_log():
    first, named, second = Around(), Around(log="mine", seed=1), Around(seed=2)
    run = small.trainer([first, named, second])
    run.fit(small.theirs(), small.loader())
    assert [callback._prefix for callback in (first, named, second)] == ["around", "mine", "around_2"]


def test_a_step_or_a_reading_must_be_written():
    with pytest.raises(NotImplementedError, match="TrainingStepCallback goes around a training step and must say how"):
        TrainingStepCallback()._step(None)
    with pytest.raises(NotImplementedError, match="ReadingCallback reads a module and must say what"):
        ReadingCallback()._read(None, None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"seed": True}, "seed: expected a whole number, got True"),
        ({"seed": 1.5}, "seed: expected a whole number, got 1.5"),
        ({"log": 0}, "log: expected True, False or a prefix for the names, got 0"),
        ({"spec": {}}, "spec: expected a BatchSpec, got dict"),
    ],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(TypeError, match=text):
        LightningCallback(**options)


class ThreeLooks(torch.optim.SGD):
    """Evaluates the loss three times a step, as a line search does."""

    def step(self, closure=None):
        for _ in range(3):
            loss = closure()
        return loss


@pytest.mark.parametrize("name", small.TRAINING)
def test_an_optimiser_may_evaluate_a_batch_several_times(name):
    """Each time with the same draws, or a line search would compare losses of other images; it is one batch seen."""
    losses = []

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self(batch[0]), batch[1])
        losses.append((batch_idx, float(loss.detach())))
        return loss

    def configure_optimizers(self):
        return ThreeLooks(self.parameters(), lr=0.0)

    callback = small.TRAINING[name]()
    module = small.theirs(training_step=training_step, configure_optimizers=configure_optimizers)
    module.net = small.network(norm=False)
    small.fit(module, callback, max_epochs=1)
    assert callback.steps == 3
    for number in range(3):  # the weights stay
        (loss,) = {loss for batch_idx, loss in losses if batch_idx == number}
        assert losses.count((number, loss)) == 3


def test_a_stream_goes_on_once_a_batch_however_often_an_optimiser_evaluates_it(tmp_path):
    for number in range(6):
        Image.new("RGB", (small.SIDE, small.SIDE), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    bank = StreamedBackgroundBank.from_folder(tmp_path, small.SIDE, 2)
    module = small.theirs(configure_optimizers=lambda self: ThreeLooks(self.parameters(), lr=0.0))
    refreshed = []
    bank.refresh = lambda count: refreshed.append(module.global_step)
    small.fit(module, BackgroundSwapCallback(BackgroundSwap(bank, different_class=False), refresh=1), max_epochs=1)
    assert refreshed == [0, 1, 2]
