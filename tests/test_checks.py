from __future__ import annotations

import pytest
import torch

from torch_bgdebias import checks


def test_masks_come_back_as_b1hw_in_the_images_dtype():
    image = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    for mask in (torch.ones(2, 4, 5, dtype=torch.bool), torch.rand(2, 1, 4, 5), torch.rand(2, 4, 5).half()):
        out = checks.check_mask(mask, image)
        assert out.shape == (2, 1, 4, 5)
        assert out.dtype == torch.float64


@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        (torch.ones(2, 1, 4, 6), ValueError, r"mask: expected shape \(2, 1, 4, 5\).*got float32.*\(2, 1, 4, 6\)"),
        (torch.ones(1, 1, 4, 5), ValueError, r"mask: expected shape \(2, 1, 4, 5\)"),
        (torch.ones(2, 3, 4, 5), ValueError, r"mask: expected shape \(B, 1, H, W\)"),
        (torch.ones(4, 5), ValueError, r"mask: expected shape"),
        (torch.ones(2, dtype=torch.int64), ValueError, r"mask: expected shape \(B, 1, H, W\).*int64"),
        (torch.full((2, 1, 4, 5), 255, dtype=torch.uint8), TypeError, r"mask: .*uint8.*mask > 127"),
        (torch.full((2, 1, 4, 5), 1.5), ValueError, r"mask: expected values in \[0, 1\], got \[1.5, 1.5\]"),
        (torch.full((2, 1, 4, 5), -0.1), ValueError, r"mask: expected values in \[0, 1\]"),
        (torch.full((2, 1, 4, 5), float("nan")), ValueError, r"mask: expected values in \[0, 1\], got \[nan, nan\]"),
        ([[1.0]], TypeError, r"mask: expected a bool or float tensor.*list"),
    ],
)
def test_bad_masks_are_named(mask, error, text):
    with pytest.raises(error, match=text):
        checks.check_mask(mask, torch.rand(2, 3, 4, 5))


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), TypeError, "image: .*uint8.*image / 255"),
        (torch.zeros(3, 4, 5), ValueError, r"image: expected shape \(B, C, H, W\)"),
        (torch.zeros(2, 3, 0, 5), ValueError, "at least one pixel"),
        (torch.zeros(2, 4, 4, 5), ValueError, "image: expected 3 channels"),
        (None, TypeError, "image: expected a float tensor"),
    ],
)
def test_bad_images_are_named(image, error, text):
    with pytest.raises(error, match=text):
        checks.check_image(image, channels=3)


def test_empty_batches_pass():
    assert checks.check_image(torch.zeros(0, 3, 2, 2)).shape[0] == 0
    assert checks.check_label(torch.zeros(0, dtype=torch.long), 0, num_classes=3).shape == (0,)


def test_channels_that_come_last_are_told():
    image, mask = torch.zeros(2, 6, 5, 3), torch.ones(2, 1, 6, 5)
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 1, 5, 3\) .*come last, .*image.movedim\(-1, 1\)"):
        checks.check_mask(mask, image)
    assert checks.check_mask(mask, image.movedim(-1, 1)).shape == mask.shape
    with pytest.raises(ValueError, match=r"to go with the image, got float32 tensor of shape \(2, 1, 6, 5\)$"):
        checks.check_mask(mask, torch.zeros(2, 3, 7, 5))


def test_labels():
    assert checks.check_label(torch.tensor([0, 2], dtype=torch.int32), 2, num_classes=3).dtype == torch.int64
    with pytest.raises(ValueError, match=r"label: expected classes in \[0, 2\], got \[0, 3\]"):
        checks.check_label(torch.tensor([0, 3]), 2, num_classes=3)
    with pytest.raises(TypeError, match="label: expected integer classes"):
        checks.check_label(torch.tensor([0.0, 1.0]), 2)
    with pytest.raises(ValueError, match=r"label: expected shape \(3,\)"):
        checks.check_label(torch.tensor([0, 1]), 3)


def test_embeddings_and_finite():
    with pytest.raises(ValueError, match="anchor: expected width 4"):
        checks.check_embedding(torch.rand(2, 3), name="anchor", dim=4)
    bad = torch.rand(4, 3)
    bad[2, 1] = float("inf")
    with pytest.raises(ValueError, match=r"anchor: expected finite values.*sample\(s\) \[2\]"):
        checks.check_finite(bad, name="anchor")


def test_the_advice_about_masks_and_labels_works():
    image, mask = torch.rand(2, 3, 4, 5), torch.ones(2, 1, 4, 5)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got \[255, 255\]; pass mask / 255 if it holds 0 to 255"):
        checks.check_mask(255 * mask, image)
    assert torch.equal(checks.check_mask(255 * mask / 255, image), mask)
    label = torch.tensor([2, 0])
    with pytest.raises(ValueError, match=r"\(2, 1\); pass label.reshape\(2\)$"):
        checks.check_label(label[:, None], 2)
    assert torch.equal(checks.check_label(label[:, None].reshape(2), 2), label)
    one_hot = torch.eye(3, dtype=torch.long)[label]
    with pytest.raises(ValueError, match=r"\(2, 3\); pass label.argmax\(1\) if it is one-hot$"):
        checks.check_label(one_hot, 2)
    assert torch.equal(checks.check_label(one_hot.argmax(1), 2), label)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_sum_that_overflows_is_no_infinity(dtype):
    large = torch.full((3, 50), torch.finfo(dtype).max, dtype=dtype)
    assert checks.all_finite(large)
    assert checks.all_finite(large.repeat(2, 1) * torch.tensor([1, -1, 1, -1, 1, -1], dtype=dtype)[:, None])
    for bad in (float("nan"), float("inf"), -float("inf")):
        with_bad = large.clone()
        with_bad[1, 7] = bad
        assert not checks.all_finite(with_bad)
    opposite = torch.tensor([float("inf"), -float("inf")], dtype=dtype)
    assert not checks.all_finite(opposite)
    assert checks.all_finite(opposite[:0])


def test_options():
    assert checks.check_option("paste", ("paste", "voronoi"), name="pattern") == "paste"
    with pytest.raises(ValueError, match="pattern: expected one of 'paste', 'voronoi', got 'mosaic'"):
        checks.check_option("mosaic", ("paste", "voronoi"), name="pattern")


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None])
def test_counts(value):
    assert checks.check_count(3, name="cells") == 3
    with pytest.raises(ValueError, match=f"^cells: expected a whole number of at least 1, got {value!r}$"):
        checks.check_count(value, name="cells")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_shares(value):
    assert checks.check_share(0.5, name="p") == 0.5
    assert checks.check_share(1, name="p") == 1
    with pytest.raises(ValueError, match=f"^p: expected a probability in .0, 1., got {value!r}$"):
        checks.check_share(value, name="p", kind="a probability")


def test_mean_with_std():
    assert checks.check_mean_std(None, None) is None
    assert checks.check_mean_std([0.5], [0.25], channels=3) == ((0.5,), (0.25,))
    with pytest.raises(ValueError, match="mean, std: expected 1 or 3 of each, got 2 and 2"):
        checks.check_mean_std([0.5, 0.5], [0.25, 0.5], channels=3)
    with pytest.raises(ValueError, match="mean, std: expected both or none, got only std"):
        checks.check_mean_std(None, [1.0])
    with pytest.raises(ValueError, match="expected finite numbers"):
        checks.check_mean_std([float("nan")], [1.0])


def test_a_volume_where_images_are_expected_is_called_so():
    with pytest.raises(
        ValueError, match=r"expected shape \(B, C, H, W\) .*; volumes \(B, C, D, H, W\) are not taken here"
    ):
        checks.check_image(torch.rand(2, 1, 4, 5, 6))
    with pytest.raises(ValueError, match=r"with at least one pixel, got [^;]*$"):
        checks.check_image(torch.rand(2, 4, 5))
