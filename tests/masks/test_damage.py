"""Masks made worse: each kind against its definition, pixel by pixel; and the overlap that results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from torch_bgdebias.masks import Licence, MadeMasks
from torch_bgdebias.masks.damage import Boxed, Exchanged, Grown, Made, Moved, Shrunk, default_damages, overlap


def masks(count=4, size=(40, 50)):
    truth = torch.zeros(count, 1, *size)
    for i in range(count):
        truth[i, 0, 8 + i : 20 + 2 * i, 10 + 3 * i : 30 + i] = 1
        truth[i, 0, 12 + i, 30 + i : 34 + i] = 1
    return truth


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("kind", "morphology"), [(Grown, ndimage.grey_dilation), (Shrunk, ndimage.grey_erosion)])
def test_edges_are_morphology(kind, morphology):
    given = masks() * 0.8
    changed = kind(0.05)(torch.zeros(4, 3, 40, 50), given, draws())
    for before, after in zip(given, changed, strict=True):
        expected = morphology(before[0].numpy(), size=(5, 5), mode="nearest")  # two pixels of forty on every side
        np.testing.assert_array_equal(after[0].numpy(), expected)
    assert (kind(0.05).name, kind(0.001).radius(given)) == (f"{kind.__name__.lower()} by 5 %", 1)


def test_an_object_along_the_border_shrinks_from_within_alone():
    given = torch.zeros(1, 1, 10, 10)
    given[..., :5] = 1
    assert torch.equal(Shrunk(0.1)(given, given, draws())[0, 0, 0], torch.tensor([1.0] * 4 + [0.0] * 6))


def test_moved_masks_keep_their_shape_and_go_as_far_as_they_should():
    given = masks()
    changed = Moved(0.1)(given, given, draws())
    for before, after in zip(given, changed, strict=True):
        assert after.sum() == before.sum(), "all of it is still inside"
        a, b = (np.array(ndimage.center_of_mass(mask[0].numpy())) for mask in (before, after))
        assert abs(np.linalg.norm(a - b) - 4) < 1
    again = Moved(0.1)(given, given, draws())
    assert torch.equal(changed, again)
    assert not torch.equal(changed, Moved(0.1)(given, given, draws(1)))
    assert Moved(1.0)(given, given, draws()).shape == given.shape, "quite out of the picture"


def test_boxes_and_exchanged_masks():
    given = masks()
    given[3] = 0
    boxed = Boxed()(given, given, draws())
    assert boxed[0].sum() == 12 * 24
    assert boxed[3].sum() == 0
    everything = Exchanged(1.0)(given, given, draws())
    assert torch.equal(everything, given.roll(1, 0))
    assert torch.equal(Exchanged(0.0)(given, given, draws()), given)
    many = torch.arange(2000.0)[:, None, None, None] / 2000
    share = (Exchanged(0.25)(many, many, draws()) != many).float().mean()
    assert abs(float(share) - 0.25) < 0.04
    alone = given[:1]
    assert torch.equal(Exchanged(1.0)(alone, alone, draws()), alone.flip(2, 3))


def test_makers_see_the_pictures_and_no_masks():
    class Red:
        name, licence, takes, needs = "red", Licence("none", "a test"), frozenset(), frozenset()

        def __call__(self, images, hints):
            assert hints.texts == [None] * len(images)
            return MadeMasks(images[:, 0], torch.ones(len(images)))

    image = torch.rand(4, 3, 40, 50)
    assert torch.equal(Made(Red())(image, masks(), draws()), image[:, :1])
    assert Made(Red()).name == "by red"
    needy = Red()
    needy.needs = frozenset({"text"})
    with pytest.raises(ValueError, match="expected one that needs no hints, got red"):
        Made(needy)


def test_overlap():
    a = torch.zeros(3, 1, 4, 4)
    b = a.clone()
    a[0, 0, :2], b[0, 0, 1:3] = 1, 1
    a[1, 0, 0, 0] = 0.4
    b[2, 0, 0] = 1
    assert overlap(a, b).tolist() == pytest.approx([1 / 3, 1.0, 0.0])


def test_default_kinds_go_from_hardly_to_badly_wrong():
    given = masks()
    overlaps = {d.name: float(overlap(d(given, given, draws()), given).mean()) for d in default_damages()}
    assert len(overlaps) == 13
    assert max(overlaps.values()) > 0.75
    assert overlaps["grown by 2 %"] > overlaps["grown by 5 %"] > overlaps["grown by 10 %"]
    for kind in (Grown, Moved, Exchanged):
        with pytest.raises(ValueError, match=r"share: expected a share in \[0, 1\], got 2"):
            kind(2)
