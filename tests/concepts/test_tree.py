"""The dendrogram of vectors, against loops over its branches and known limits."""

from __future__ import annotations

import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch.nn.functional import normalize

from torch_bgdebias.concepts import concept_tree
from torch_bgdebias.concepts.tree import LINKAGES


def sample(n: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (n,), generator=g)
    return torch.randn(n, 4, generator=g) + 2 * torch.eye(4)[labels], labels


@pytest.mark.parametrize("method", LINKAGES)
def test_separation_is_the_best_overlap_of_a_loop_over_all_branches(method):
    vectors, labels = sample()
    tree = concept_tree(vectors, labels, linkage=method)
    expected = linkage(normalize(vectors, dim=1).double().numpy(), method)
    torch.testing.assert_close(tree.merges, torch.from_numpy(expected))
    branches = [{i} for i in range(30)]
    for one, two in expected[:, :2].astype(int).tolist():
        branches.append(branches[one] | branches[two])
    for concept in range(3):
        own = {i for i in range(30) if labels[i] == concept}
        overlaps = [len(own & branch) / len(own | branch) for branch in branches]
        assert float(tree.separation[concept]) == pytest.approx(max(overlaps))
        assert overlaps[int(tree.branch[concept])] == max(overlaps)
        assert float(tree.floor[concept]) == pytest.approx(len(own) / 30)
        assert tree.separation[concept] >= tree.floor[concept]


def test_concepts_that_are_apart_are_a_branch_each_and_the_cut_finds_them():
    labels = torch.arange(60) % 3
    vectors = torch.eye(3)[labels] * (1 + torch.arange(60)[:, None]) + 0.01
    tree = concept_tree(vectors, labels)
    assert tree.separation.tolist() == [1, 1, 1]
    numbers = tree.clusters(3)
    assert {(int(n), int(k)) for n, k in zip(numbers, labels, strict=True)} == {(int(numbers[i]), i) for i in range(3)}
    assert sorted(tree.order.tolist()) == list(range(60))
    assert [len(set(labels[tree.order[i : i + 20]].tolist())) for i in (0, 20, 40)] == [1, 1, 1]
    assert tree.clusters(1).unique().tolist() == [0]
    vectors, labels = sample()
    tree = concept_tree(vectors, labels)
    assert len(set(tree.clusters(7).tolist())) == len(set(fcluster(tree.merges.numpy(), 7, "maxclust").tolist())) == 7


def test_what_has_no_answer():
    tree = concept_tree(torch.eye(3), torch.tensor([0, 2, 2]))
    assert tree.branch.tolist()[1] == -1
    assert bool(tree.separation.isnan()[1])
    assert bool(tree.floor.isnan()[1])
    for vectors, labels, options, text in (
        (torch.eye(3)[:1], torch.tensor([0]), {}, "vectors: expected 2 to 20,000 of them, got 1"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {}, "vectors: expected none of length 0"),
        (torch.eye(3), torch.tensor([0, -1, 1]), {}, "labels: expected concepts from 0, got -1"),
        (torch.eye(3), torch.tensor([0, 1, 1]), {"linkage": "wards"}, "linkage: expected"),
    ):
        with pytest.raises(ValueError, match=text):
            concept_tree(vectors, labels, **options)
    with pytest.raises(ValueError, match="count: expected at most the 3 vectors, got 4"):
        tree.clusters(4)
