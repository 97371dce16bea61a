"""Neighbours and outliers of vectors, against loops and known limits."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.concepts import concept_neighbours, concept_outliers, populations


def sample(n: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (n,), generator=g)
    return torch.randn(n, 4, generator=g) + 1.5 * torch.eye(4)[labels], labels


@pytest.mark.parametrize("chunk", [1, 4_000_000])
def test_neighbours_are_those_of_a_loop(monkeypatch, chunk):
    monkeypatch.setattr(populations, "_CHUNK", chunk)
    vectors, labels = sample()
    table = [[0] * 3 for _ in range(3)]
    for i in range(30):
        cosines = [(float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)), j) for j in range(30) if j != i]
        for _, j in sorted(cosines, reverse=True)[:4]:
            table[int(labels[i])][int(labels[j])] += 1
    result = concept_neighbours(vectors, labels, 4)
    expected = torch.tensor(table, dtype=torch.float32)
    torch.testing.assert_close(result.confusion, expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(result.separation, result.confusion.diagonal())
    sizes = torch.bincount(labels)
    torch.testing.assert_close(result.chance, (sizes - 1) / 29)


def test_outliers_are_those_of_a_loop_and_a_turned_vector_is_the_first():
    vectors, labels = sample()
    expected = []
    for i in range(30):
        own = [j for j in range(30) if j != i and labels[j] == labels[i]]
        cosines = sorted((float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)) for j in own), reverse=True)
        expected.append(1 - sum(cosines[:3]) / 3)
    torch.testing.assert_close(concept_outliers(vectors, labels, 3), torch.tensor(expected))
    close = torch.eye(4)[0] + 0.01 * torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    close[7] *= -1
    scores = concept_outliers(close, torch.zeros(20, dtype=torch.int64))
    assert int(scores.argmax()) == 7
    assert float(scores[7]) > 1.9


def test_random_vectors_are_as_good_as_chance_and_apart_ones_perfect():
    g = torch.Generator().manual_seed(2)
    labels = torch.arange(600) % 3
    result = concept_neighbours(torch.randn(600, 30, generator=g), labels)
    assert (result.separation - result.chance).abs().max() < 0.06
    apart = concept_neighbours(torch.eye(3)[labels] + 0.01 * torch.randn(600, 3, generator=g), labels)
    assert apart.separation.tolist() == [1, 1, 1]


def test_what_has_no_answer():
    labels = torch.tensor([0, 2, 2])
    vectors = torch.eye(3)
    assert concept_outliers(vectors, labels).isnan().tolist() == [True, False, False]
    assert concept_neighbours(vectors, labels, 1).separation.isnan().tolist() == [False, True, False]
    for call, text in (
        (lambda: concept_neighbours(vectors, labels, 3), "neighbours: expected fewer than the 3 vectors, got 3"),
        (lambda: concept_neighbours(torch.zeros(3, 2), labels, 1), "expected none of length 0"),
        (lambda: concept_outliers(vectors[0], labels), r"vectors: expected a float tensor \(N, C\)"),
        (lambda: concept_outliers(vectors, torch.tensor([0, -1, 0])), "labels: expected concepts from 0, got -1"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
