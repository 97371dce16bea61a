"""The default draw: what is behind an object says nothing about its class, counted and trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.swap import BackgroundSwap, sample_swap_params

#: labels of a batch: equal, unequal, and ten classes
BATCHES = {
    "two classes": torch.tensor([0, 1] * 4),
    "unequal classes": torch.tensor([0] * 9 + [1] * 4 + [2]),
    "ten classes": torch.arange(10).repeat_interleave(torch.tensor([1, 2, 1, 1, 3, 1, 1, 2, 1, 1])),
}
DRAWS = 1500


def chi_square(table: torch.Tensor) -> float:
    """How far counts (classes, backgrounds) is from independent: chi-square as a z score (Wilson, Hilferty)."""
    expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float(((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5)


def counted(label: torch.Tensor, background: torch.Tensor, classes: int, backgrounds: int) -> torch.Tensor:
    """Counts (classes, backgrounds) of pairs."""
    pairs = torch.bincount(label * backgrounds + background, minlength=classes * backgrounds)
    return pairs.view(classes, backgrounds).double()


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
@pytest.mark.parametrize("name", BATCHES)
def test_backgrounds_of_the_batch_are_independent_of_the_class(generator, pattern, name):
    label = BATCHES[name]
    swap = BackgroundSwap("batch", pattern, cells=3)
    shape = (len(label), 3, 8, 8)
    drawn = [swap.generate_parameters(shape, label, generator=generator)["index"] for _ in range(DRAWS)]
    index = torch.stack(drawn)  # (draws, B, K)
    for cell in range(index.shape[2]):
        classes = int(label.max()) + 1
        pairs = counted(label.repeat(DRAWS), label[index[..., cell]].flatten(), classes, classes)
        share = torch.bincount(label).double() / len(label)  # own class included, at its share of the batch
        assert ((pairs / pairs.sum(1, keepdim=True)) - share).abs().max() < 0.05
        assert chi_square(pairs) < 4


def test_which_cells_meet_is_independent_of_the_class(generator):
    label = BATCHES["unequal classes"]
    swap = BackgroundSwap("batch", "voronoi", cells=2)
    index = torch.stack(
        [swap.generate_parameters((14, 3, 8, 8), label, generator=generator)["index"] for _ in range(DRAWS)]
    )
    both = label[index[..., 0]] * 3 + label[index[..., 1]]
    pairs = counted(label.repeat(DRAWS), both.flatten(), 3, 9)
    assert chi_square(pairs[:, pairs.sum(0) > 0]) < 4


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
@pytest.mark.parametrize("labelled", [True, False])
def test_backgrounds_of_a_bank_are_independent_of_the_class(generator, pattern, labelled):
    own = torch.tensor([0] * 7 + [1] * 2 + [2])
    bank = BackgroundBank(torch.zeros(10, 1, 4, 4, dtype=torch.uint8), own if labelled else None)
    label = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([20_000, 6000, 2000]))
    index = sample_swap_params((28_000, 1, 4, 4), label, bank, pattern=pattern, cells=3, generator=generator)["index"]
    for cell in range(index.shape[1]):
        assert chi_square(counted(label, index[:, cell], 3, 10)) < 4


def test_the_test_sees_a_draw_that_leaves_the_own_class_out(generator):
    label = BATCHES["unequal classes"]
    swap = BackgroundSwap("batch", different_class=True)
    index = torch.stack(
        [swap.generate_parameters((14, 3, 8, 8), label, generator=generator)["index"] for _ in range(200)]
    )
    assert chi_square(counted(label.repeat(200), label[index[..., 0]].flatten(), 3, 3)) > 20


def test_no_labels_are_needed(generator):
    image, mask = torch.rand(6, 3, 8, 8), torch.zeros(6, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1
    swap = BackgroundSwap()
    swapped = swap(image, mask=mask, generator=generator)
    assert not torch.equal(swapped, image)
    assert swap.drawn["background_label"].tolist() == [-1] * 6


def test_who_asks_for_another_class_gets_it_unless_the_swap_says_no(generator):
    label = BATCHES["unequal classes"]
    shape = (len(label), 3, 8, 8)
    for said, asked, other in ((None, True, True), (False, True, False), (True, False, True), (None, None, False)):
        swap = BackgroundSwap(different_class=said)
        drawn = [
            swap.generate_parameters(shape, label, different_class=asked, generator=generator)["background_label"]
            for _ in range(20)
        ]
        assert bool((torch.stack(drawn) != label).all()) is other


# trained: objects of two rows say the class, and so does the colour of the background, before it is swapped


def scenes(
    label: torch.Tensor, background: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, 12, 12): a bar whose place is the class before a background of one colour; their masks."""
    count = len(label)
    colour = torch.rand(10, 3, 1, 1, generator=torch.Generator().manual_seed(5))
    image = colour[background].expand(-1, -1, 12, 12) + 0.05 * torch.rand(count, 3, 12, 12, generator=generator)
    mask = torch.zeros(count, 1, 12, 12)
    mask[:, :, 3:9, 3:9] = 1
    shape = torch.zeros(count, 1, 6, 6)
    for row, place in enumerate(label.tolist()):
        shape[row, 0, place % 5 + 1 - place // 5, 3 * (place // 5) : 3 * (place // 5) + 3] = 0.5
    image[:, :, 3:9, 3:9] = shape + 0.1 * torch.rand(count, 1, 6, 6, generator=generator)
    return image, mask


def trained(counts: list[int], swap: BackgroundSwap | None) -> tuple[float, float]:
    """Accuracy on the training images' own backgrounds and on the next class's, after training with ``swap``."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    label = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    image, mask = scenes(label, label, generator)
    network = nn.Sequential(nn.Flatten(), nn.Linear(432, 48), nn.ReLU(), nn.Linear(48, len(counts)))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(100):
        batch = torch.randperm(len(label), generator=generator)[:40]
        seen = image[batch]
        if swap is not None:
            seen = swap(seen, mask=mask[batch], label=label[batch], generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(seen), label[batch]).backward()
        optimizer.step()
    test, _ = scenes(label, label, generator)
    moved, _ = scenes(label, (label + 1) % len(counts), generator)
    with torch.no_grad():
        own, following = ((network(x).argmax(1) == label).float().mean() for x in (test, moved))
    return float(own), float(following)


@pytest.mark.parametrize("counts", [[20, 20], [40, 20, 8], [8] * 10], ids=["two", "three unbalanced", "ten"])
@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
@pytest.mark.parametrize("source", ["batch", "bank"])
def test_training_with_the_default_keeps_accuracy_on_every_background(counts, pattern, source):
    label = torch.arange(len(counts))
    bank = BackgroundBank(
        scenes(label, label, torch.Generator().manual_seed(1))[0][:, :, :1].expand(-1, -1, 12, -1), label
    )
    own, following = trained(counts, BackgroundSwap("batch" if source == "batch" else bank, pattern, cells=3))
    assert min(own, following) > 0.9


def test_training_without_a_swap_and_with_another_class_only_shows_what_is_at_stake():
    assert trained([20, 20], None)[1] < 0.5
    assert trained([20, 20], BackgroundSwap(different_class=True))[0] < 0.5
