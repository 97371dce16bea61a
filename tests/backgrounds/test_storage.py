"""Bank files that were cut short or changed: a ValueError that names file and field."""

from __future__ import annotations

import random

import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank


@pytest.fixture
def bank_file(tmp_path):
    images = torch.randint(0, 255, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    bank = BackgroundBank(images, torch.arange(6) % 2, classes=["a", "b"])
    levels = bank.filter(lambda x: torch.stack([x.mean((1, 2, 3)), x[:, 0].mean((1, 2))], 1), {0: [1]}, 1,
                         class_names=["x", "y"], cache=False)  # fmt: skip
    levels.save(tmp_path / "scenes.bank")
    return tmp_path / "scenes.bank"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c.pop("mean"), r"scenes.bank: a field is missing: 'mean'"),
        (lambda c: c.update(images=None), r"scenes.bank: images: expected a tensor .*, got None"),
        (lambda c: c.update(images=torch.tensor(1)), r"scenes.bank: images: expected a tensor \(N, C, Hb, Wb\), got"),
        (lambda c: c.update(images=[1]), r"scenes.bank: images: expected a tensor, got list"),
        (lambda c: c.update(images=torch.zeros(6)), r"scenes.bank: images: expected"),
        (lambda c: c.update(labels=torch.arange(5)), r"scenes.bank: labels: expected shape \(6,\)"),
        (lambda c: c.update(mean=torch.zeros(2)), r"scenes.bank: mean, std: expected both"),
        (lambda c: c.update(classes=[1]), r"scenes.bank: classes\[0\]: expected a text, got 1"),
        (lambda c: c.update(filters=[{"x": 1}]), r"scenes.bank: a field is missing: 'filters\[0\].by_class'"),
        (lambda c: c["filters"][0].update(top_k="a"), r"filters\[0\].top_k: expected a whole number in .*, got 'a'"),
        (lambda c: c["filters"][0].update(by_foreground=3), r"filters\[0\].by_foreground: expected whole numbers"),
        (lambda c: c.update(forbidden=[torch.tensor([9])]), r"forbidden: expected three int64 tensors"),
        (lambda c: c["forbidden"].__setitem__(2, c["forbidden"][2] + 99), r"forbidden.images: expected .* in \[0, 5\]"),
        (lambda c: c["forbidden"].__setitem__(1, c["forbidden"][1] - 1), r"forbidden.rows: expected .* in \[0, 0\]"),
        (lambda c: c.update(format=99), r"expected a file written by BackgroundBank.save .*scenes.bank"),
    ],
)
def test_a_wrong_field_is_named(bank_file, change, error):
    content = torch.load(bank_file, weights_only=True)
    assert len(content["forbidden"][2]) > 0
    change(content)
    torch.save(content, bank_file)
    with pytest.raises(ValueError, match=error):
        BackgroundBank.load(bank_file)


def damage(bank_file, seeds: range) -> int:
    """How many of the damaged files were refused, each by its name; what is read all the same has the bank's sizes."""
    refused, bank = 0, BackgroundBank.load(bank_file)
    whole = bank_file.read_bytes()
    for seed in seeds:
        draw = random.Random(seed)
        if draw.random() < 0.3:
            content = whole[: draw.randrange(len(whole))]
        else:
            place = draw.randrange(len(whole))
            content = whole[:place] + draw.randbytes(draw.choice([1, 4, 20])) + whole[place + 20 :]
        bank_file.write_bytes(content)
        try:
            loaded = BackgroundBank.load(bank_file, mmap=draw.random() < 0.5)
        except ValueError as error:
            refused += 1
            if "scenes.bank" not in str(error):
                pytest.fail(f"seed {seed}: {error}")
        else:
            assert (loaded.images.shape, loaded.labels.shape) == (bank.images.shape, bank.labels.shape), seed
    return refused


def test_damaged_files_are_refused_by_name(bank_file):
    assert 50 < damage(bank_file, range(150)) <= 150


@pytest.mark.slow
def test_twenty_thousand_damaged_files(bank_file):
    assert 7_000 < damage(bank_file, range(150, 20_150)) <= 20_000


def test_save_and_load(tmp_path):
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    bank = BackgroundBank(images, [0, 1, 1, 0], mean=[0.1] * 3, std=[0.2] * 3, classes=["a", "b"])
    bank.save(tmp_path / "bank.pt")
    loaded = BackgroundBank.load(tmp_path / "bank.pt")
    assert torch.equal(loaded.images, images)
    assert loaded.classes == ("a", "b")
    index = torch.tensor([2, 0])
    assert torch.equal(loaded.float_images(index), bank.float_images(index))
    torch.save({"x": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="path: expected a file written by BackgroundBank.save"):
        BackgroundBank.load(tmp_path / "other.pt")
