from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.backgrounds import BackgroundBank, StreamedBackgroundBank
from torch_bgdebias.swap import BackgroundSwap


def refreshed(bank: StreamedBackgroundBank, k: int) -> StreamedBackgroundBank:
    bank.refresh(k)
    return bank


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of one grey level each: 10 i, in two categories."""
    for i in range(10):
        category = tmp_path / ("even" if i % 2 == 0 else "odd")
        category.mkdir(exist_ok=True)
        Image.fromarray(np.full((6, 6, 3), 10 * i, np.uint8)).save(category / f"{i}.png")
    return tmp_path


def shown(bank: BackgroundBank) -> list[int]:
    return (bank.images[:, 0, 0, 0] // 10).tolist()


def test_refresh_goes_through_all_files_and_replaces_the_oldest(folder):
    bank = StreamedBackgroundBank.from_folder(folder, 6, capacity=4, threads=2)
    assert len(bank) == 4
    seen = shown(bank)
    held = list(seen)
    for step in range(3):
        bank.refresh(2)
        place = (2 * step) % 4
        held[place : place + 2] = shown(bank)[place : place + 2]
        assert shown(bank) == held  # nothing else moved
        seen += held[place : place + 2]
    assert sorted(seen) == list(range(10))  # one round: every file once
    assert bank.labels.tolist() == [image % 2 for image in shown(bank)]


def test_draws_follow_the_new_labels(folder):
    bank = StreamedBackgroundBank.from_folder(folder, 6, capacity=5)
    for _ in range(7):
        bank.refresh(3)
        labels = torch.tensor([image % 2 for image in shown(bank)])
        exclude = torch.arange(100) % 2
        index = bank.draw(100, exclude)
        possible = torch.tensor([bool((labels != label).any()) for label in exclude])
        assert torch.equal(index >= 0, possible)
        assert (labels[index[possible]] != exclude[possible]).all()


def test_contents_depend_on_seed_and_refreshes_alone(folder):
    banks = [
        StreamedBackgroundBank.from_folder(folder, 6, 4, seed=seed, threads=n) for seed, n in ((1, 1), (1, 4), (2, 1))
    ]
    histories = []
    for bank in banks:
        history = [shown(bank)]
        for k in (1, 3, 0, 2, 2, 4, 1):
            bank.refresh(k)
            history.append(shown(bank))
        histories.append(history)
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


def test_state_brings_a_new_bank_to_the_same_place(folder):
    bank = StreamedBackgroundBank.from_folder(folder, 6, 4, seed=1)
    for _ in range(5):
        bank.refresh(3)
    state = pickle.loads(pickle.dumps(bank.state_dict()))
    other = StreamedBackgroundBank.from_folder(folder, 6, 4, seed=9)
    other.refresh(1)  # with a read ahead on its way
    other.load_state_dict(state)
    for _ in range(6):
        assert torch.equal(other.images, bank.images)
        assert torch.equal(other.labels, bank.labels)
        assert torch.equal(*(b.draw(9, generator=torch.Generator().manual_seed(0)) for b in (bank, other)))
        bank.refresh(2)
        other.refresh(2)
    with pytest.raises(ValueError, match=r"state: expected \(files, images held\) \(10, 3\), got \(10, 4\)"):
        StreamedBackgroundBank.from_folder(folder, 6, 3).load_state_dict(state)


def test_a_capacity_that_holds_everything(folder):
    bank = StreamedBackgroundBank.from_folder(folder, 6, 50)
    before = shown(bank)
    bank.refresh(5)
    assert sorted(before) == list(range(10))
    assert shown(bank) == before


def test_it_serves_a_swap_and_survives_pickling(folder):
    bank = StreamedBackgroundBank.from_folder(folder, 6, 5, mean=[0.5] * 3, std=[0.5] * 3)
    bank.refresh(2)
    again = pickle.loads(pickle.dumps(bank))
    again.refresh(2)
    bank.refresh(2)
    assert shown(again) == shown(bank)
    swapped = BackgroundSwap(bank)(torch.zeros(3, 3, 6, 6), torch.zeros(3, 1, 6, 6), torch.full((3,), 7))[0]
    levels = ((swapped[:, 0, 0, 0] * 0.5 + 0.5) * 25.5).round().int().tolist()
    assert set(levels) <= set(shown(bank))


def test_unreadable_files(folder):
    (folder / "odd" / "3.png").write_bytes(b"")
    with pytest.raises(OSError, match=r"unreadable image file .*3\.png"):
        StreamedBackgroundBank.from_folder(folder, 6, 9).refresh(5)
    with pytest.warns(UserWarning, match=r"skipped 1 of 10 images: .*3\.png"):
        bank = refreshed(StreamedBackgroundBank.from_folder(folder, 6, 9, on_error="skip"), 9)
    assert bank.skipped >= 1
    assert 3 not in shown(bank)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="root: expected readable images, got none"):
        StreamedBackgroundBank.from_folder(folder, 6, 4, on_error="skip")


def test_bad_arguments_are_named(folder):
    with pytest.raises(ValueError, match="capacity: expected a whole number of at least 1, got 0"):
        StreamedBackgroundBank.from_folder(folder, 6, 0)
    with pytest.raises(ValueError, match=r"k: expected in \[0, 4\], got 5"):
        StreamedBackgroundBank.from_folder(folder, 6, 4).refresh(5)
