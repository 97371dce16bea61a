"""Modules that say ``x, y = batch``, in their steps or transfer hooks, with batches that have masks."""

from __future__ import annotations

import pytest
import small_training as small
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from torch_bgdebias.batch import BatchSpec, MaskedBatch, collate_masked

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
]
HIDING = BatchSpec(hide_mask=True)
NAMES = ["swap", "clad", "isnet"]


def step_of_two(self, batch, batch_idx):
    x, y = batch
    return F.cross_entropy(self(x), y)


def evaluation_of_two(self, batch, batch_idx):
    x, y = batch
    self.log("val_loss", F.cross_entropy(self(x), y))


def hook_of_two(self, batch, dataloader_idx):
    x, y = batch
    return x * 2, y


def end_of_two(self, outputs, batch, batch_idx):
    _, _ = batch


TWO = {"training_step": step_of_two, "validation_step": evaluation_of_two}


def three(self, batch, batch_idx):
    x, y = batch[:2]
    return F.cross_entropy(self(x), y)


@pytest.mark.parametrize("package", small.PACKAGES)
@pytest.mark.parametrize("name", NAMES)
def test_steps_and_hooks_of_two(name, package):
    hooks = {"on_before_batch_transfer": hook_of_two, "on_after_batch_transfer": hook_of_two}
    module = small.theirs(package, **TWO, **hooks, on_train_batch_end=end_of_two)
    run = small.trainer([small.CALLBACKS[name](HIDING)], package)
    run.fit(module, small.loader(), small.loader())
    assert not set(vars(module)) & {*TWO, *hooks, "on_train_batch_end"}
    # the same as a module that takes three
    image, label, mask = small.tensors()
    other = small.theirs(package, training_step=three)
    small.trainer([small.CALLBACKS[name]()], package).fit(other, small.loader(image * 4, label, mask))
    torch.testing.assert_close(small.weights(module), small.weights(other))


def test_evaluation_of_two_after_the_fit_and_batches_of_two_in_validation():
    module = small.theirs(**TWO, test_step=evaluation_of_two)
    run = small.trainer([small.make_swap(HIDING)])
    image, label, _ = small.tensors()
    run.fit(module, small.loader(), small.loader(image, label))
    with torch.no_grad():
        expected = float(F.cross_entropy(module.eval()(image), label))
    for evaluate in (run.validate, run.test):
        (metrics,) = evaluate(module, small.loader(), verbose=False)
        assert metrics["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_data_modules_hooks_of_two():
    class Data(small.package().LightningDataModule):
        def train_dataloader(self):
            return small.loader()

        def on_after_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            return x * 2, y

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            x, y = batch
            return [x.to(device), y.to(device)]

    data = Data()
    small.trainer([small.make_clad(HIDING)]).fit(small.theirs(**TWO), datamodule=data)
    assert "on_after_batch_transfer" not in vars(data)


def test_two_callbacks_hide_once():
    module = small.theirs(**TWO)
    small.trainer([small.make_swap(HIDING), small.make_clad(HIDING)]).fit(module, small.loader())
    both = small.theirs()
    small.trainer([small.make_swap(), small.make_clad()]).fit(both, small.loader())
    assert torch.equal(small.weights(module), small.weights(both))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("workers", [0, 1])
def test_masked_batches_need_no_option(name, workers):
    options = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}
    rows = list(zip(*small.tensors(), strict=True))
    batches = DataLoader(rows, batch_size=8, collate_fn=collate_masked, **options)
    module = small.theirs(**TWO)
    small.trainer([small.CALLBACKS[name]()]).fit(module, batches, batches)
    plain = small.theirs()
    small.trainer([small.CALLBACKS[name]()]).fit(plain, small.loader())
    assert torch.equal(small.weights(module), small.weights(plain))


def test_masked_batches_keep_their_mask_in_a_change_of_precision():
    rows = list(zip(*small.tensors(), strict=True))
    module = small.theirs(**TWO)
    run = small.trainer([small.make_swap()], precision="64-true")
    run.fit(module, DataLoader(rows, batch_size=8, collate_fn=collate_masked))
    moved = MaskedBatch(*small.tensors()).to(torch.float64)
    assert (moved.image.dtype, moved.mask.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_one_of_several_loaders_has_masks(name):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["labelled"][0]), batch["labelled"][1])

    def loaders():
        return {"labelled": small.loader(), "unlabelled": small.loader(small.tensors()[0])}

    spec = BatchSpec(("labelled", 0), "labelled.1", ("labelled", 2))
    plain = small.theirs()
    small.trainer([small.CALLBACKS[name]()], max_epochs=1).fit(plain, small.loader())
    for mode in ("min_size", "max_size_cycle", "max_size"):
        module = small.theirs(training_step=training_step)
        combined = small.package().utilities.CombinedLoader(loaders(), mode)
        small.trainer([small.CALLBACKS[name](spec)], max_epochs=1).fit(module, combined)
        assert torch.equal(small.weights(module), small.weights(plain))
