from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_training
import torch
from PIL import Image
from small_training import COUNT, NAMED, Module, NamedFields, loader, tensors, weights

from torch_bgdebias.backgrounds import BackgroundBank, StreamedBackgroundBank
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.callbacks import BackgroundSwapCallback
from torch_bgdebias.swap import BackgroundSwap

fit = partial(small_training.fit, max_epochs=1)


class Recording(Module):
    """Somebody else's module, with the batches that its steps were given."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.seen: list = []
        self.seen_validation: list = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.seen_validation.append(batch[0])


def check_swapped(images: torch.Tensor, which: slice) -> None:
    original, _, mask = (tensor[which] for tensor in tensors())
    inside = mask.bool().expand_as(original)
    assert torch.equal(images[inside], original[inside])
    assert not torch.isclose(images, original)[~inside].all()


def test_tuple_batches_are_swapped_and_validation_is_not():
    module = Recording()
    run = fit(module, BackgroundSwapCallback(BackgroundSwap()), val=loader())
    assert len(module.seen) == 3
    for i, batch in enumerate(module.seen):
        check_swapped(batch[0], slice(8 * i, 8 * i + 8))
        assert torch.equal(batch[1], tensors()[1][8 * i : 8 * i + 8])
    assert torch.equal(torch.cat(module.seen_validation)[-COUNT:], tensors()[0])
    assert run.callback_metrics["background_swap/fraction"] == 1.0


def test_dict_batches_keep_their_type_and_get_background_labels():
    module, names = Recording(image="image", label="label"), NamedFields()
    batches = loader(NamedFields(background=names.fields["label"]))
    spec = dataclasses.replace(NAMED, background_label="background")
    fit(module, BackgroundSwapCallback(BackgroundSwap(different_class=True), spec), train=batches)
    for i, batch in enumerate(module.seen):
        check_swapped(batch["image"], slice(8 * i, 8 * i + 8))
        assert (batch["background"] != batch["label"]).all()
        assert batch["background"].min() >= 0
    module = Recording(image="image", label="label")
    fit(module, BackgroundSwapCallback(BackgroundSwap(), NAMED), train=loader(names))
    check_swapped(module.seen[0]["image"], slice(0, 8))
    assert "background" not in module.seen[0]


def test_a_bank_without_labels_needs_none():
    module = Recording()
    bank = BackgroundBank(torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8))
    fit(module, BackgroundSwapCallback(BackgroundSwap(bank, "voronoi"), BatchSpec(label=None)))
    check_swapped(module.seen[0][0], slice(0, 8))


def test_a_batch_without_masks_is_named():
    image, label, _ = tensors()
    with pytest.raises(KeyError, match=r"batch has no mask at 2; it holds 2 item"):
        fit(Module(), BackgroundSwapCallback(BackgroundSwap()), train=loader(image, label))


def test_schedule_and_start_epoch():
    module = Recording()
    callback = BackgroundSwapCallback(
        BackgroundSwap(), start_epoch=1, schedule=lambda epoch, step: 0.0 if epoch == 2 else 1.0
    )
    fit(module, callback, max_epochs=4)
    original = tensors()[0]
    for epoch, changed in enumerate((False, True, False, True)):
        images = torch.cat([batch[0] for batch in module.seen[3 * epoch : 3 * epoch + 3]])
        assert torch.equal(images, original) != changed


def test_two_swaps_in_one_trainer_stack():
    module = Recording()
    bank = BackgroundBank(torch.zeros(1, 3, 8, 8))
    callbacks = [BackgroundSwapCallback(BackgroundSwap(), seed=1), BackgroundSwapCallback(BackgroundSwap(bank), seed=2)]
    fit(module, *callbacks)
    assert (module.seen[0][0] * (1 - tensors()[2][:8]) == 0).all()  # the last one's black background


def test_draws_differ_by_step_seed_and_rank():
    callback = BackgroundSwapCallback(BackgroundSwap())
    draws = set()
    for seed in range(3):
        for rank in range(3):
            for step in range(3):
                callback.seed, callback.steps = seed, step
                module = SimpleNamespace(global_rank=rank, device="cpu")
                draws.add(tuple(torch.rand(2, generator=callback._seeded(module)).tolist()))
    assert len(draws) == 27


def make_scenes(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(20):
        (root / f"c{i % 4}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / f"c{i % 4}" / f"{i}.png")
    return root


def test_a_resumed_run_has_the_stream_where_it_was(tmp_path):
    scenes = make_scenes(tmp_path / "scenes")

    def fitted(epochs: int, ckpt: Path | None = None):
        swap = BackgroundSwap(StreamedBackgroundBank.from_folder(scenes, 8, 6), p=0.7)
        module = Recording()
        return module, fit(module, BackgroundSwapCallback(swap, refresh=2), max_epochs=epochs, ckpt=ckpt)

    whole, _ = fitted(4)
    _, first = fitted(2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(123)
    second, _ = fitted(4, tmp_path / "half.ckpt")
    assert len(second.seen) == 6
    for resumed, uninterrupted in zip(second.seen, whole.seen[6:], strict=True):
        assert torch.equal(resumed[0], uninterrupted[0])
    assert torch.equal(weights(second), weights(whole))


def test_gradient_accumulation_and_bfloat16_run():
    module = Recording()
    options = {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}
    fit(module, BackgroundSwapCallback(BackgroundSwap(pattern="voronoi")), **options)
    check_swapped(module.seen[0][0], slice(0, 8))


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="swap: expected a BackgroundSwap, got str"):
        BackgroundSwapCallback("batch")
    with pytest.raises(ValueError, match="start_epoch: expected a whole number of at least 0, got -1"):
        BackgroundSwapCallback(BackgroundSwap(), start_epoch=-1)


class Keeps(Recording):
    """Writes what it was given, one file a rank."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self):
        seen = torch.cat([batch[0] for batch in self.seen])
        logged = self.trainer.callback_metrics["background_swap/fraction"]
        torch.save((seen, logged), self.folder / f"{self.global_rank}.pt")


@pytest.mark.slow
def test_two_processes_draw_for_themselves(tmp_path):
    same = loader(*(tensor[:8].repeat(3, *[1] * (tensor.ndim - 1)) for tensor in tensors()))
    callback = BackgroundSwapCallback(BackgroundSwap(pattern="voronoi", p=0.5))
    options = {"strategy": "ddp_spawn", "devices": 2, "use_distributed_sampler": False}
    fit(Keeps(tmp_path), callback, train=same, **options)
    (first, fraction), (second, other_fraction) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert not torch.equal(first, second)  # both ranks got the same images
    assert fraction == other_fraction  # the mean over both
