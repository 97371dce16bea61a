from __future__ import annotations

import copy
import io
import pickle
import warnings
from types import SimpleNamespace

import kornia.augmentation as K
import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.compositing import mean_fill, tile_fill
from torch_bgdebias.swap import BackgroundSwap, batch_backgrounds, sample_swap_params, swap_background
from torch_bgdebias.swap.module import _WarnOnce

LABEL = torch.tensor([0, 0, 1, 1, 2, 2])


def slow_swap(image, mask, backgrounds, params):
    """Pixel by pixel from the definition."""
    out = image.clone()
    for b in range(len(image)):
        if not params["apply"][b]:
            continue
        for y in range(image.shape[2]):
            for x in range(image.shape[3]):
                distance = ((params["sites"][b] - torch.tensor([y + 0.5, x + 0.5])) ** 2).sum(1)
                k = int(distance.argmin())
                source = backgrounds[params["index"][b, k]]
                oy, ox = params["offset"][b, k].tolist()
                pixel = source[:, (y + oy) % source.shape[1], (x + ox) % source.shape[2]]
                out[b, :, y, x] = mask[b, 0, y, x] * image[b, :, y, x] + (1 - mask[b, 0, y, x]) * pixel
    return out


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
@pytest.mark.parametrize("fill", ["tile", "mean"])
def test_batch_swap_matches_a_slow_loop(batch, pattern, fill):
    image, mask, label = batch
    swap = BackgroundSwap("batch", pattern, cells=3, p=0.7, fill=fill)
    swapped, same_mask, same_label = swap(image, mask, label)
    backgrounds = {"tile": tile_fill, "mean": mean_fill}[fill](image, mask)
    torch.testing.assert_close(swapped, slow_swap(image, mask, backgrounds, swap.drawn))
    assert same_mask is mask
    assert same_label is label


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
def test_bank_swap_matches_a_slow_loop(batch, bank, pattern):
    image, mask, label = batch
    swap = BackgroundSwap(bank, pattern, cells=5, different_class=True)
    swapped = swap(image, mask, label)[0]
    backgrounds = bank.float_images(torch.arange(9))
    torch.testing.assert_close(swapped, slow_swap(image, mask, backgrounds, swap.drawn))
    assert (bank.labels[swap.drawn["index"]] != label[:, None]).all()


def test_nothing_of_the_old_background_is_left(batch):
    image, mask, label = batch
    mask = (mask > 0).float()
    own = label.float()[:, None, None, None].expand_as(image)  # every image is one colour, its label
    swap = BackgroundSwap(different_class=True)
    swapped = swap(own, mask, label)[0]
    inside = mask.bool().expand_as(image)
    assert torch.equal(swapped[inside], own[inside])
    new = swap.drawn["background_label"].float()[:, None, None, None].expand_as(image)
    assert torch.equal(swapped[~inside], new[~inside])
    assert (swap.drawn["background_label"] != label).all()


@pytest.mark.parametrize("source", ["batch", "bank"])
@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
def test_replay_and_generator_give_identical_results(batch, bank, source, pattern):
    image, mask, label = batch
    swap = BackgroundSwap(bank if source == "bank" else "batch", pattern, p=0.6)
    first = swap(image, mask, label, generator=torch.Generator().manual_seed(3))[0]
    params = swap.drawn
    assert torch.equal(swap(image, mask, label, params=params)[0], first)
    assert torch.equal(swap(image, mask, params=pickle.loads(pickle.dumps(params)))[0], first)
    assert torch.equal(swap(image, mask, label, generator=torch.Generator().manual_seed(3))[0], first)
    assert not torch.equal(swap(image, mask, label, generator=torch.Generator().manual_seed(4))[0], first)
    drawn = swap.generate_parameters(image.shape, label, generator=torch.Generator().manual_seed(3))
    assert torch.equal(swap(image, mask, params=drawn)[0], first)


def test_function_layer_is_the_module(batch, bank):
    image, mask, label = batch
    params = sample_swap_params(image.shape, label, bank, pattern="voronoi")
    direct = swap_background(image, mask, bank.images, params, mean=bank.mean, std=bank.std)
    assert torch.equal(direct, BackgroundSwap(bank)(image, mask, params=params)[0])
    params = sample_swap_params(image.shape, label)
    direct = swap_background(image, mask, batch_backgrounds(image, mask), params)
    assert torch.equal(direct, BackgroundSwap()(image, mask, params=params)[0])


def test_p_zero_one_and_between(batch):
    image, mask, label = batch
    never = BackgroundSwap(p=0.0)
    assert torch.equal(never(image, mask, label)[0], image)
    assert torch.equal(never._params["background_label"], label)
    assert BackgroundSwap(p=1.0).generate_parameters(image.shape, label)["apply"].all()
    applied = [BackgroundSwap(p=0.5).generate_parameters(image.shape, label)["apply"] for _ in range(30)]
    assert any(a.any() and not a.all() for a in applied)  # drawn for each image, not for the batch


def test_empty_and_full_masks(batch):
    image, _, label = batch
    full = BackgroundSwap()(image, torch.ones(6, 1, 13, 17), label)[0]
    assert torch.equal(full, image)
    swap = BackgroundSwap()
    empty = swap(image, torch.zeros(6, 1, 13, 17), label)[0]
    assert torch.equal(empty, image[swap.drawn["index"][:, 0]])


@pytest.mark.parametrize("different_class", [True, False])
def test_a_batch_of_one_keeps_its_background_and_warns_once(batch, different_class):
    image, mask, label = (tensor[:1] for tensor in batch)
    swap = BackgroundSwap(different_class=different_class)
    with pytest.warns(UserWarning, match="some images keep their background"):
        swapped = swap(image, mask, label)[0]
    assert torch.equal(swapped, image)
    assert torch.equal(swap.drawn["background_label"], label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swap(image, mask, label)


def test_small_batches_keep_some_of_the_bias_and_say_so_once(batch):
    """Each image draws its own background in one of B draws: counted, and spoken of below 16."""
    swap, generator = BackgroundSwap(), torch.Generator().manual_seed(0)
    with pytest.warns(UserWarning, match=r"batches of fewer than 16 images, .* 1/B of the bias stays"):
        draws = [swap.generate_parameters((4, 3, 8, 8), generator=generator)["index"][:, 0] for _ in range(2000)]
    own = float((torch.stack(draws) == torch.arange(4)).float().mean())
    assert own == pytest.approx(0.25, abs=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swap(*batch)
        large = BackgroundSwap()
        large.generate_parameters((16, 3, 8, 8))
        large.generate_parameters((5, 3, 8, 8))  # an epoch's last
        BackgroundSwap(BackgroundBank(torch.zeros(4, 3, 13, 17))).generate_parameters((4, 3, 8, 8))
        BackgroundSwap(different_class=True).generate_parameters((4, 3, 8, 8), torch.arange(4))


def test_a_batch_of_one_class_keeps_its_backgrounds(batch):
    image, mask, _ = batch
    label = torch.full((6,), 4)
    swap = BackgroundSwap(pattern="voronoi", different_class=True)
    with pytest.warns(UserWarning, match="none of another class"):
        assert torch.equal(swap(image, mask, label)[0], image)
    assert torch.equal(swap.drawn["background_label"], label)
    assert not swap.drawn["apply"].any()


def test_a_bank_of_one_class_swaps_the_others_only(batch):
    image, mask, label = batch
    swap = BackgroundSwap(BackgroundBank(torch.zeros(4, 3, 13, 17), [1, 1, 1, 1]), different_class=True)
    with pytest.warns(UserWarning, match="some images keep their background"):
        swapped = swap(image, mask, label)[0]
    assert torch.equal(swap.drawn["apply"], label != 1)
    assert torch.equal(swap.drawn["background_label"], torch.ones(6, dtype=torch.int64))
    assert torch.equal(swapped[label == 1], image[label == 1])


def test_a_bank_of_one_image_and_an_empty_batch(batch):
    image, mask, label = batch
    bank = BackgroundBank(torch.rand(1, 3, 13, 17))
    swapped = BackgroundSwap(bank)(image, torch.zeros_like(mask))[0]
    assert torch.equal(swapped, bank.images.expand(6, -1, -1, -1))
    for source in ("batch", bank):
        assert BackgroundSwap(source)(image[:0], mask[:0], label[:0])[0].shape == (0, 3, 13, 17)


def test_smaller_and_larger_banks(batch):
    image, _, label = batch
    nothing = torch.zeros(6, 1, 13, 17)
    small = torch.rand(1, 3, 5, 4)
    swapped = BackgroundSwap(BackgroundBank(small))(image, nothing, label)[0]
    assert torch.equal(swapped[0], small[0].repeat(1, 3, 5)[:, :13, :17])  # tiled
    large = torch.rand(1, 3, 20, 18)
    swap = BackgroundSwap(BackgroundBank(large))
    swapped = swap(image, nothing, label)[0]
    for new, (oy, ox) in zip(swapped, swap.drawn["offset"][:, 0].tolist(), strict=True):
        assert torch.equal(new, large[0, :, oy : oy + 13, ox : ox + 17])  # a window, no seam


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
def test_other_dtypes(batch, bank, dtype, pattern):
    image, mask, label = batch
    for source in ("batch", bank):
        swap = BackgroundSwap(source, pattern)
        exact = swap(image, mask, label)[0]
        swapped = swap(image.to(dtype), mask.to(dtype), label, params=swap.drawn)[0]
        assert swapped.dtype == dtype
        torch.testing.assert_close(swapped.float(), exact, atol=0.03, rtol=0.03)


def test_bool_masks_and_masks_without_a_channel(batch):
    image, mask, label = batch
    swap = BackgroundSwap()
    hard = swap(image, (mask > 0.5).float(), label)[0]
    assert torch.equal(swap(image, (mask > 0.5)[:, 0], label, params=swap.drawn)[0], hard)


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
def test_gradients_to_image_and_mask(generator, pattern):
    image = torch.rand(4, 2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(4, 1, 5, 6, generator=generator, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    bank = BackgroundBank(torch.randint(0, 256, (5, 2, 4, 9), dtype=torch.uint8, generator=generator))
    params = sample_swap_params(image.shape, None, bank, pattern=pattern, cells=3, p=0.7, generator=generator)
    assert torch.autograd.gradcheck(lambda i, m: swap_background(i, m, bank.images, params), (image, mask))


def test_in_batch_backgrounds_are_constants(batch):
    image, mask, label = batch
    image.requires_grad_()
    swap = BackgroundSwap()
    swap(image, mask, label)[0].sum().backward()
    torch.testing.assert_close(image.grad, mask.expand_as(image))


def test_functional_part_compiles_without_graph_breaks(batch, bank):
    image, mask, label = batch

    def swap(image, mask, label):
        params = sample_swap_params(image.shape, label, bank, pattern="voronoi")
        return swap_background(image, mask, bank.images, params, mean=bank.mean, std=bank.std), params

    swapped, params = torch.compile(swap, fullgraph=True, backend="aot_eager")(image, mask, label)
    torch.testing.assert_close(swapped, swap_background(image, mask, bank.images, params, mean=bank.mean, std=bank.std))


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
def test_the_module_compiles_without_graph_breaks(batch, pattern):
    image, mask, label = batch
    swap = BackgroundSwap("batch", pattern)
    swapped = torch.compile(swap, fullgraph=True, backend="aot_eager")(image, mask, label)[0]
    assert torch.equal(swapped, swap(image, mask, params=swap.drawn)[0])


def test_what_was_drawn_is_public(batch):
    image, mask, label = batch
    swap = BackgroundSwap()
    with pytest.raises(RuntimeError, match=r"drawn: expected a swap that was called, got one that was not"):
        swap.drawn  # noqa: B018
    swapped = swap(image, mask, label)[0]
    assert torch.equal(swap.drawn["background_label"], label[swap.drawn["index"][:, 0]])
    assert swap.drawn is swap._params  # kornia's own place
    assert torch.equal(swap(image, mask, params=swap.drawn)[0], swapped)


# kornia


def test_it_is_a_kornia_mix_augmentation(bank):
    swap = BackgroundSwap(bank, "voronoi", p=0.5)
    assert isinstance(swap, K.MixAugmentationBaseV2)
    assert "pattern=voronoi" in repr(swap)
    assert not list(swap.parameters())
    assert not swap.state_dict()
    with pytest.raises(RuntimeError, match="Inverse"):
        swap.inverse()


@pytest.mark.parametrize("after", [True, False])
def test_beside_an_augmentation_sequential(batch, after):
    image, mask, label = batch
    geometry = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5), K.RandomAffine(10.0, p=1.0), data_keys=["input", "mask", "class"]
    )
    swap = BackgroundSwap()
    if after:
        moved, moved_mask, same = geometry(image, mask, label)
        out, out_mask, out_label = swap(moved, moved_mask, same)
        expected = slow_swap(moved, moved_mask, tile_fill(moved, moved_mask), swap.drawn)
        torch.testing.assert_close(out, expected)
    else:
        out, out_mask, out_label = geometry(*swap(image, mask, label))
    assert out.shape == image.shape
    assert out_mask.shape == mask.shape
    assert torch.equal(out_label.long(), label)


def test_inside_an_augmentation_sequential_says_to_go_beside(batch):
    image, mask, label = batch
    inside = K.AugmentationSequential(
        K.RandomHorizontalFlip(), BackgroundSwap(different_class=True), data_keys=["input", "mask", "class"]
    )
    with pytest.raises(ValueError, match=r"label: expected .*call it beside the container, image, mask, label = swap"):
        inside(image, mask, label)
    inside = K.AugmentationSequential(BackgroundSwap(different_class=False), data_keys=["input", "mask"])
    with pytest.raises(ValueError, match=r"mask: expected .*call it beside the container"):
        inside(image, mask)


def test_data_keys_in_any_order_and_other_inputs_pass(batch):
    image, mask, label = batch
    boxes = torch.rand(6, 2, 4)
    swap = BackgroundSwap(data_keys=["mask", "bbox_xyxy", "input", "label"])
    same_mask, same_boxes, swapped, _ = swap(mask, boxes, image, label)
    assert same_mask is mask
    assert same_boxes is boxes
    assert torch.equal(BackgroundSwap()(image, mask, label, params=swap.drawn)[0], swapped)
    assert torch.equal(swap(image, mask=mask, label=label, params=swap.drawn, data_keys=["input"]), swapped)
    assert len(BackgroundSwap()(image, mask, label=label)) == 2


def test_copies_pickles_and_moves(batch, bank):
    image, mask, label = batch
    swap = BackgroundSwap(bank, "voronoi")
    first = swap(image, mask, label)[0]
    buffer = io.BytesIO()
    torch.save(swap, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(swap), pickle.loads(pickle.dumps(swap)), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(image, mask, params=swap.drawn)[0], first)
    swap.to("meta")
    assert bank.device.type == "meta"
    assert swap.half() is swap
    assert bank.images.dtype == torch.uint8


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_graph_of_the_swap_gives_what_the_swap_gives(batch):
    image, mask, label = (x.cuda() for x in batch)
    bank = BackgroundBank(torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8), torch.arange(9)).to("cuda")
    swap = BackgroundSwap(bank, "voronoi", cells=3)
    params = swap.generate_parameters(image.shape, label)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        swap(image, mask, params=params)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        swapped = swap(image, mask, params=params)[0]
    image.copy_(torch.rand_like(image))
    graph.replay()
    torch.testing.assert_close(swapped, swap(image, mask, params=params)[0])


def test_nothing_is_looked_at_while_a_cuda_graph_is_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    watch = _WarnOnce("a message")
    watch.look(SimpleNamespace(device=torch.device("cuda")))  # neither asked for a value nor for an event
    assert not watch.done
    with pytest.raises(AttributeError, match="any"):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        monkeypatch.setattr(torch.cuda, "Event", SimpleNamespace)
        watch.look(SimpleNamespace(device=torch.device("cuda")))
