from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from torch_bgdebias.concepts import concept_iou, concept_objective, fit_concepts, fit_loce, fit_net2vec


def plain_objective(vector, activations, mask):
    """One sample, the formula as the paper writes it: the activations are resized, then weighted."""
    large = F.interpolate(activations[None], size=mask.shape, mode="bilinear", align_corners=False)[0]
    score = (vector[:, None, None] * large).sum(0)
    alpha = 1 - mask.mean()
    weight = alpha * mask + (1 - alpha) * (1 - mask)
    return (weight * F.binary_cross_entropy_with_logits(score, (mask > 0.5).to(score), reduction="none")).sum()


def plain_fit(activations, masks, epochs=30, lr=0.1):
    vector = torch.zeros(activations.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([vector], lr=lr)
    for _ in range(epochs):
        optimizer.zero_grad()
        losses = [plain_objective(vector, a, m) for a, m in zip(activations, masks, strict=True)]
        torch.stack(losses).mean().backward()
        optimizer.step()
    return vector.detach()


def data(samples=6, channels=5, small=(7, 6), large=(20, 16), seed=0):
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(samples, channels, *small, generator=generator)
    masks = F.interpolate((activations[:, :1] > 0.3).float(), size=large)[:, 0]
    return activations, masks


def relative(vectors, expected):
    return float((torch.as_tensor(vectors) - torch.as_tensor(expected)).norm() / torch.as_tensor(expected).norm())


def test_reference_arrays(vectors):
    v = {k: torch.tensor(a) for k, a in vectors("concept").items()}
    activations, masks = v["activations"], v["masks"].float()
    assert relative(concept_objective(v["objective/vector"], activations, masks), v["objective/value"]) < 1e-5
    net2vec, loce = fit_net2vec(activations, masks), fit_loce(activations, masks)
    assert relative(net2vec, v["net2vec/vector"][0]) < 1e-4
    assert relative(loce, v["loce/vectors"]) < 1e-4
    assert relative(concept_iou(net2vec, activations, masks), v["net2vec/iou"]) < 1e-4
    assert relative(concept_iou(loce, activations, masks), v["loce/iou"]) < 1e-4


def test_resized_fits_agree_with_the_plain_formula():
    activations, masks = data()
    assert relative(fit_net2vec(activations, masks), plain_fit(activations, masks)) < 1e-4
    expected = torch.stack([plain_fit(a[None], m[None]) for a, m in zip(activations, masks, strict=True)])
    assert relative(fit_loce(activations, masks), expected) < 1e-4


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunks_and_groups_change_nothing(chunk):
    activations, masks = data(samples=9)
    group = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1, 4])
    together = fit_concepts(activations, masks, group=group, num_groups=5, chunk=chunk)
    for g in (0, 1, 2, 4):
        assert relative(together[g], plain_fit(activations[group == g], masks[group == g])) < 1e-4
    assert together[3].abs().max() == 0  # no samples
    assert (
        relative(fit_concepts(activations, masks, group=torch.arange(9), chunk=chunk), fit_loce(activations, masks))
        < 1e-5
    )


def test_activations_may_be_streamed_from_disk(tmp_path):
    activations, masks = data(samples=8)
    stored = np.memmap(tmp_path / "a.bin", dtype=np.float32, mode="w+", shape=tuple(activations.shape))
    stored[:] = activations.numpy()

    class OnDisk:
        shape = activations.shape

        def __getitem__(self, index):
            return torch.from_numpy(np.array(stored[index]))

    assert relative(fit_concepts(OnDisk(), masks, chunk=3), fit_net2vec(activations, masks)) < 1e-5


def test_gradient_of_the_objective():
    activations, masks = data(samples=2)
    vectors = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v, a: concept_objective(v, a, masks.double()), (vectors, activations.double().requires_grad_())
    )


def test_half_precision_and_bool_masks():
    activations, masks = data()
    expected = fit_net2vec(activations.half().float(), masks)
    assert torch.equal(fit_net2vec(activations.half(), masks > 0.5), expected)


def test_a_separable_concept_is_found():
    activations = data(samples=12, small=(10, 8))[0]
    masks = (activations[:, 2] > 0).float()
    iou = concept_iou(fit_net2vec(activations, masks), activations, masks)
    assert iou.min() > 0.9
    assert concept_iou(torch.zeros(5), activations, masks).max() == 0


def test_iou_of_nothing_is_nan():
    activations, masks = data(samples=2)
    masks[0] = 0
    iou = concept_iou(torch.zeros(5), activations, masks)
    assert iou[0].isnan()
    assert iou[1] == 0


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"masks": torch.zeros(5, 20, 16)}, ValueError, r"masks: expected \(6, H, W\)"),
        ({"masks": torch.full((6, 20, 16), 2.0)}, ValueError, r"masks: expected values in \[0, 1\]"),
        ({"masks": torch.zeros(6, 20, 16, dtype=torch.uint8)}, TypeError, "masks > 127"),
        ({"activations": torch.full((6, 5, 7, 6), float("nan"))}, ValueError, r"activations: .*sample\(s\) \[0, 1"),
        ({"activations": torch.zeros(6, 5, 7)}, ValueError, r"activations: expected \(N, C, h, w\)"),
        ({"activations": torch.zeros(0, 5, 7, 6), "masks": torch.zeros(0, 2, 2)}, ValueError, "at least one sample"),
        (
            {"group": torch.tensor([0, 1, 2, 3, 4, 5]), "num_groups": 3},
            ValueError,
            r"group: expected classes in \[0, 2\]",
        ),
    ],
)
def test_bad_input(change, error, text):
    activations, masks = data()
    with pytest.raises(error, match=text):
        fit_concepts(**{"activations": activations, "masks": masks, **change})


def test_vectors_of_another_width():
    activations, masks = data()
    with pytest.raises(ValueError, match=r"vectors: expected \(5,\) or \(6, 5\), got float32 tensor of shape \(4,\)"):
        concept_iou(torch.zeros(4), activations, masks)


def test_void_is_neither_object_nor_background():
    """Against the paper's formula with sums over the known pixels alone; what masks say of void changes nothing."""
    activations, masks = data()
    void = torch.rand(masks.shape, generator=torch.Generator().manual_seed(1)) < 0.3

    def objective(vector, activation, mask, unknown):
        large = F.interpolate(activation[None], size=mask.shape, mode="bilinear", align_corners=False)[0]
        score, known = (vector[:, None, None] * large).sum(0), ~unknown
        alpha = 1 - mask[known].mean()
        weight = alpha * mask + (1 - alpha) * (1 - mask)
        loss = F.binary_cross_entropy_with_logits(score, (mask > 0.5).to(score), reduction="none")
        return (weight * loss)[known].sum()

    vector = torch.randn(activations.shape[1], generator=torch.Generator().manual_seed(2))
    expected = torch.stack([objective(vector, *one) for one in zip(activations, masks, void, strict=True)])
    torch.testing.assert_close(concept_objective(vector, activations, masks, void.float()), expected)
    fitted = fit_net2vec(activations, masks, void=void)
    free = torch.zeros(activations.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([free], lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        torch.stack([objective(free, *one) for one in zip(activations, masks, void, strict=True)]).mean().backward()
        optimizer.step()
    assert relative(fitted, free.detach()) < 1e-4
    assert relative(fitted, fit_net2vec(activations, masks)) > 1e-2
    torch.testing.assert_close(
        fit_loce(activations, torch.where(void, 1 - masks, masks), void=void)[0],
        fit_loce(activations, masks, void=void)[0],
    )
    torch.testing.assert_close(fit_loce(activations, masks, void=torch.zeros_like(void)), fit_loce(activations, masks))
