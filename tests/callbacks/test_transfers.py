"""Transfer hooks that move images and leave their masks behind are told of, whichever callback trains on them."""

from __future__ import annotations

import warnings

import pytest
import small_training as small
import torch

from torch_bgdebias import BatchSpec

CAUSE = "change the images that training_step gets by more than a normalisation, and leave their masks as they are"


def hook(change, *, unpacks_two: bool = False, training: bool = False):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        if training and not self.trainer.training:
            return batch
        if unpacks_two:
            x, y = batch
            return change(x), y
        return [change(batch[0]), *batch[1:]]

    return on_after_batch_transfer


def told(name, method, spec=None) -> list[str]:
    """Warnings of this cause, and nothing left on the module."""

    def step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    module = small.theirs(on_after_batch_transfer=method, training_step=step)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small.trainer([small.CALLBACKS[name](spec)], max_epochs=4).fit(module, small.loader(), small.loader())
    assert "on_after_batch_transfer" not in vars(module)
    return [str(one.message) for one in caught if CAUSE in str(one.message)]


def flip(image):
    return image.flip(3) * torch.linspace(0.5, 1, image.shape[3])  # the square in front is symmetrical


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("name", small.TRAINING)
def test_a_flip_is_told_once(name, hidden):
    spec = BatchSpec(hide_mask=True) if hidden else None
    (message,) = told(name, hook(flip, unpacks_two=hidden, training=not hidden), spec)
    assert "let the hook move image and mask together" in message
    assert ("trains against masks" if name == "isnet" else "where the objects are no longer") in message


@pytest.mark.parametrize("name", small.TRAINING)
def test_a_normalisation_is_nothing_to_tell(name):
    assert told(name, hook(lambda image: (image - 0.4) / 0.3)) == []


@pytest.mark.parametrize("name", small.TRAINING)
def test_who_moves_both_hears_nothing(name):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        image, label, mask = batch
        return image.roll(1, 3), label, mask.roll(1, 3)

    assert told(name, on_after_batch_transfer) == []


def test_several_callbacks_leave_in_any_order():
    module = small.theirs(on_after_batch_transfer=hook(lambda image: image * 2))
    callbacks = [small.make_swap(), small.make_isnet(BatchSpec(hide_mask=True)), small.make_clad()]
    for order in (1, -1):
        small.trainer(callbacks[::order], max_epochs=1).fit(module, small.loader())
        assert "on_after_batch_transfer" not in vars(module)


@pytest.mark.parametrize("name", small.TRAINING)
def test_mixtures_that_the_loader_makes_are_told_once(name):
    def mixing(items):
        image, label, mask = torch.utils.data.default_collate(items)
        share, target = 0.6813, torch.nn.functional.one_hot(label, small.CLASSES).float()
        return [share * x + (1 - share) * x.roll(1, 0) for x in (image, target)] + [mask]

    image, label, mask = small.tensors()
    batches = small.loader(torch.utils.data.TensorDataset(image, label, mask), collate_fn=mixing)
    options = {"label_of": lambda target: target.argmax(1), "criterion": torch.nn.functional.cross_entropy}
    callback = small.CALLBACKS[name](**(options if name == "clad" else {}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small.trainer([callback]).fit(small.theirs(), batches)
    (message,) = [str(one.message) for one in caught if "mixup and cutmix in the loader" in str(one.message)]
    assert ("trains against masks" if name == "isnet" else "where the objects are no longer") in message
