"""Resuming in mid-epoch: a loader that starts anew is the trainer's to tell of, one that keeps its place is enough."""

from __future__ import annotations

import warnings

import pytest
import small_training as small
import torch

TOLD = "resuming from a checkpoint that ended before the epoch ended and your dataloader is not resumable"


class KeepsItsPlace:
    """Batches in order, from where a checkpoint left off."""

    def __init__(self):
        self.batches, self.place, self.start = list(small.loader()), 0, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        start, self.start = self.start, 0
        for place in range(start, len(self.batches)):
            self.place = (place + 1) % len(self.batches)
            yield self.batches[place]

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.start = state["place"]


def save_at(step, path, package):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == step:
            trainer.save_checkpoint(path)

    return type("SaveAt", (small.package(package).Callback,), {"on_train_batch_end": on_train_batch_end})()


def resumed(name, batches, path, package, step=5):
    """Weights of a run that goes on after so many steps of three an epoch, those of the whole run, and warnings."""
    whole, second = small.theirs(package), small.theirs(package)
    small.trainer([small.CALLBACKS[name](), save_at(step, path, package)], package, max_epochs=3).fit(whole, batches())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = small.trainer([small.CALLBACKS[name]()], package, max_epochs=3)
        run.fit(second, batches(), ckpt_path=path, **small.unpickled(run, path))
    assert run.global_step == 9
    return small.weights(second), small.weights(whole), [str(one.message) for one in caught if TOLD in str(one.message)]


@pytest.mark.parametrize("package", small.PACKAGES)
@pytest.mark.parametrize("name", small.TRAINING)
@pytest.mark.filterwarnings("ignore")
def test_a_plain_loader_in_the_middle_of_an_epoch_is_told_of_once(name, package, tmp_path):
    second, whole, messages = resumed(name, small.loader, tmp_path / "mid.ckpt", package)
    assert len(messages) == 1
    assert not torch.equal(second, whole), "otherwise there would be nothing to tell"


@pytest.mark.parametrize("step", [5, 6])
@pytest.mark.parametrize("name", small.TRAINING)
@pytest.mark.filterwarnings("ignore")
def test_a_loader_that_keeps_its_place_resumes_exactly(name, step, tmp_path):
    second, whole, messages = resumed(name, KeepsItsPlace, tmp_path / "mid.ckpt", small.PACKAGES[0], step)
    assert messages == []
    assert torch.equal(second, whole)
