"""Sub-seeds: of every use its own, the same every time and on every machine."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import pytest
import torch

from torch_bgdebias.seeds import derive_seed


def test_no_two_uses_share_a_seed() -> None:
    uses = [*itertools.product(range(40), ("weights", "batches", "CLADCallback"), range(4), range(60))]
    seeds = {derive_seed(*use) for use in uses}
    assert len(seeds) == len(uses)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 12), (11, 2)),
        ((1, 2), (2, 1)),
        ((1,), ("1",)),
        ((-1,), ("-1",)),
        (("a b",), ("a", "b")),
        (("a\\_b",), ("a b",)),
        (("a", ""), ("a",)),
        (("", "a"), ("a", "")),
        (("\\1",), ("1",)),
        (("\\", "_"), ("\\_",)),
    ],
)
def test_lists_that_could_be_written_alike_are_told_apart(one, other) -> None:
    assert derive_seed(*one) != derive_seed(*other)


def test_neighbours_start_unrelated_streams() -> None:
    streams = [torch.Generator().manual_seed(derive_seed(seed, "draws")) for seed in range(200)]
    table = torch.stack([torch.rand(64, generator=stream) for stream in streams]).double()
    correlation = torch.corrcoef(table)
    correlation.fill_diagonal_(0)
    # 19,900 pairs of 64 numbers: the largest of as many independent ones is at about 4.1 / sqrt(64)
    assert correlation.abs().max() < 0.65
    assert abs(float(table.mean()) - 0.5) < 0.02


def test_the_same_in_another_process_and_the_global_state_stays() -> None:
    state = random.getstate()
    expected = derive_seed("Callback", 3, 0, 17)
    assert random.getstate() == state
    code = "from torch_bgdebias.seeds import derive_seed; print(derive_seed('Callback', 3, 0, 17))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) == expected


def test_numbers_of_the_callbacks_are_those_of_former_releases() -> None:
    """Trainings of before are repeated by the same seed: the text that is hashed is the one that was."""
    assert derive_seed("CLADCallback", 5, 0, 12) == random.Random("CLADCallback 5 0 12").getrandbits(63)


@pytest.mark.parametrize("parts", [(), (0.5,), (1, True), (None,), (b"a",)])
def test_what_is_neither_number_nor_name_is_refused(parts) -> None:
    with pytest.raises(TypeError, match="parts: expected"):
        derive_seed(*parts)
