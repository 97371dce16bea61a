from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.callbacks import BackgroundSwapCallback
from torch_bgdebias.swap import BackgroundBank, BackgroundSwap, StreamedBackgroundBank

COUNT, CLASSES = 24, 3


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(COUNT, 3, 8, 8, generator=generator)
    mask = torch.zeros(COUNT, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1
    return image, torch.arange(COUNT) % CLASSES, mask


class AsDict(Dataset):
    def __init__(self, *, background_label: bool = False) -> None:
        self.image, self.label, self.mask = tensors()
        self.background_label = background_label

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        item = {"pixels": self.image[i], "y": self.label[i], "seg": self.mask[i]}
        return {**item, "bg": self.label[i]} if self.background_label else item


class Foreign(pl.LightningModule):
    """Somebody else's module, which has never heard of masks."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, CLASSES))
        self.seen: list = []
        self.seen_validation: list = []
        self.fail_at = fail_at

    def training_step(self, batch, batch_idx):
        image, label = (batch["pixels"], batch["y"]) if isinstance(batch, dict) else batch[:2]
        self.seen.append(batch)
        if self.fail_at == len(self.seen):
            raise RuntimeError("the loader burnt down")
        loss = torch.nn.functional.cross_entropy(self.net(image), label)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.seen_validation.append(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(callbacks, **options) -> pl.Trainer:
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **options}
    return pl.Trainer(
        accelerator="cpu", callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False, **options
    )


def loader(dataset=None) -> DataLoader:
    return DataLoader(dataset or TensorDataset(*tensors()), batch_size=8)


SPEC = BatchSpec(image="pixels", label="y", mask="seg")


def check_swapped(images: torch.Tensor, which: slice) -> None:
    original, _, mask = (tensor[which] for tensor in tensors())
    inside = mask.bool().expand_as(original)
    assert torch.equal(images[inside], original[inside])
    assert not torch.isclose(images, original)[~inside].all()


def test_tuple_batches_are_swapped_and_validation_is_not():
    torch.manual_seed(0)
    module = Foreign()
    names = list(module.state_dict())
    step = module.training_step
    fit = trainer([BackgroundSwapCallback(BackgroundSwap())])
    fit.fit(module, loader(), loader())
    assert len(module.seen) == 3
    for i, batch in enumerate(module.seen):
        check_swapped(batch[0], slice(8 * i, 8 * i + 8))
        assert torch.equal(batch[1], tensors()[1][8 * i : 8 * i + 8])
    assert torch.equal(torch.cat(module.seen_validation)[-COUNT:], tensors()[0])
    assert list(module.state_dict()) == names
    assert module.training_step == step
    assert "training_step" not in module.__dict__
    assert fit.callback_metrics["background_swap/fraction"] == 1.0


def test_nothing_is_logged_when_not_wanted():
    fit = trainer([BackgroundSwapCallback(BackgroundSwap(), log=False)])
    fit.fit(Foreign(), loader())
    assert "loss" in fit.callback_metrics
    assert "background_swap/fraction" not in fit.callback_metrics


def test_dict_batches_keep_their_type_and_get_background_labels():
    module = Foreign()
    spec = BatchSpec(image="pixels", label="y", mask="seg", background_label="bg")
    swap = BackgroundSwap(different_class=True)
    trainer([BackgroundSwapCallback(swap, spec)]).fit(module, loader(AsDict(background_label=True)))
    for i, batch in enumerate(module.seen):
        check_swapped(batch["pixels"], slice(8 * i, 8 * i + 8))
        assert (batch["bg"] != batch["y"]).all()
        assert batch["bg"].min() >= 0
    module = Foreign()
    trainer([BackgroundSwapCallback(BackgroundSwap(), SPEC)]).fit(module, loader(AsDict()))
    check_swapped(module.seen[0]["pixels"], slice(0, 8))
    assert "bg" not in module.seen[0]


def test_a_bank_without_labels_needs_none():
    module = Foreign()
    bank = BackgroundBank(torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8))
    callback = BackgroundSwapCallback(BackgroundSwap(bank, "voronoi"), BatchSpec(label=None))
    trainer([callback]).fit(module, loader())
    check_swapped(module.seen[0][0], slice(0, 8))


def test_a_batch_without_masks_is_named():
    image, label, _ = tensors()
    with pytest.raises(KeyError, match=r"batch has no mask at 2; it holds 2 item"):
        trainer([BackgroundSwapCallback(BackgroundSwap())]).fit(Foreign(), loader(TensorDataset(image, label)))


def test_the_training_step_is_back_after_an_exception():
    module = Foreign(fail_at=2)
    with pytest.raises(RuntimeError, match="burnt down"):
        trainer([BackgroundSwapCallback(BackgroundSwap())]).fit(module, loader())
    assert "training_step" not in module.__dict__


def test_schedule_and_start_epoch():
    module = Foreign()
    callback = BackgroundSwapCallback(
        BackgroundSwap(), start_epoch=1, schedule=lambda epoch, step: 0.0 if epoch == 2 else 1.0
    )
    trainer([callback], max_epochs=4).fit(module, loader())
    original = tensors()[0]
    for epoch, changed in enumerate((False, True, False, True)):
        images = torch.cat([batch[0] for batch in module.seen[3 * epoch : 3 * epoch + 3]])
        assert torch.equal(images, original) != changed


def test_two_swaps_in_one_trainer_stack():
    module = Foreign()
    bank = BackgroundBank(torch.zeros(1, 3, 8, 8))
    callbacks = [BackgroundSwapCallback(BackgroundSwap(), seed=1), BackgroundSwapCallback(BackgroundSwap(bank), seed=2)]
    trainer(callbacks).fit(module, loader())
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


@pytest.mark.parametrize("source", ["batch", "bank", "stream"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, source):
    scenes = make_scenes(tmp_path / "scenes")

    def swap() -> BackgroundSwap:
        if source == "batch":
            return BackgroundSwap("batch", "voronoi", p=0.7)
        if source == "bank":
            return BackgroundSwap(BackgroundBank.from_folder(scenes, 8), p=0.7)
        return BackgroundSwap(StreamedBackgroundBank.from_folder(scenes, 8, 6), p=0.7)

    def run(epochs: int, checkpoint: Path | None = None) -> tuple[Foreign, pl.Trainer]:
        torch.manual_seed(0)
        module = Foreign()
        fit = trainer([BackgroundSwapCallback(swap(), refresh=2)], max_epochs=epochs)
        fit.fit(module, loader(), ckpt_path=checkpoint)
        return module, fit

    whole, _ = run(4)
    _, first = run(2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(123)
    second, _ = run(4, tmp_path / "half.ckpt")
    assert len(second.seen) == 6
    for resumed, uninterrupted in zip(second.seen, whole.seen[6:], strict=True):
        assert torch.equal(resumed[0], uninterrupted[0])
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_gradient_accumulation_and_bfloat16_run():
    module = Foreign()
    options = {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}
    trainer([BackgroundSwapCallback(BackgroundSwap(pattern="voronoi"))], **options).fit(module, loader())
    check_swapped(module.seen[0][0], slice(0, 8))


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="swap: expected a BackgroundSwap, got str"):
        BackgroundSwapCallback("batch")
    with pytest.raises(ValueError, match="start_epoch: expected 0 or more, got -1"):
        BackgroundSwapCallback(BackgroundSwap(), start_epoch=-1)


class Keeps(Foreign):
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
    same = TensorDataset(*(tensor[:8].repeat(3, *[1] * (tensor.ndim - 1)) for tensor in tensors()))
    callback = BackgroundSwapCallback(BackgroundSwap(pattern="voronoi", p=0.5))
    options = {"strategy": "ddp_spawn", "devices": 2, "use_distributed_sampler": False}
    trainer([callback], **options).fit(Keeps(tmp_path), loader(same))
    (first, fraction), (second, other_fraction) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert not torch.equal(first, second)  # both ranks got the same images
    assert fraction == other_fraction  # the mean over both
