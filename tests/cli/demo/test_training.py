"""The demo's methods on a small set."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.cli.demo import training


@pytest.mark.parametrize("method", list(training.METHODS))
def test_every_method_learns_and_leaves_the_global_generator_alone(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randint(0, 60, (64, 3, 16, 16), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(64, 1, 16, 16, dtype=torch.uint8)
    masks[:, :, 4:12, 4:12] = 255
    images[:, :, 4:12, 4:12] += (labels * 150).to(torch.uint8)[:, None, None, None]
    bank = BackgroundBank(torch.randint(0, 60, (8, 3, 16, 16), generator=generator, dtype=torch.uint8), [0, 1] * 4)
    data = training.TrainingSet(images, labels, masks, bank, 2)
    before = torch.get_rng_state()
    trained = training.train(method, data, epochs=8, seed=0, batch_size=16)
    assert torch.equal(torch.get_rng_state(), before)
    assert (trained.model(images.float() / 255).argmax(1) == labels).float().mean() > 0.9
    assert not trained.model.training


def test_lambda_weighs_the_contrast() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (32, 3, 16, 16), generator=generator, dtype=torch.uint8)
    bank = BackgroundBank(images[:8], [0, 1] * 4)
    masks = torch.zeros(32, 1, 16, 16, dtype=torch.uint8)
    data = training.TrainingSet(images, torch.arange(32) % 2, masks, bank, 2)
    losses = [
        training.train("clad", data, epochs=1, seed=0, batch_size=32, clad_weight=weight).curves["loss"][0]
        for weight in (0.0, 1.0, 3.0)
    ]  # of one step, taken before it
    assert losses[1] > losses[0]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)


def test_a_last_batch_of_one_sample_is_left_out() -> None:
    bank = BackgroundBank(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), [0, 1])
    images = torch.zeros(9, 3, 16, 16, dtype=torch.uint8)
    data = training.TrainingSet(images, torch.arange(9) % 2, images[:, :1], bank, 2)
    sizes = [len(b.image) for b in training._batches(data, 4, torch.Generator().manual_seed(0))]
    assert sizes == [4, 4]
    assert training._steps(9, 4) == 2
    assert training._steps(10, 4) == 3
