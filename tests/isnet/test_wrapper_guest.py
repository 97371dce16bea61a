"""ISNet as a guest in a model that trains: what it costs when it only watches, what it leaves, what it refuses."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from pathlib import Path

import isnet_networks
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from torch_bgdebias import ISNet


class Small(isnet_networks.Small):
    """With dropout and a smooth activation."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(self.drop(F.gelu(self.bn2(self.conv2(x))).mean((2, 3))))


def picture(channels: int = 3) -> Tensor:
    return torch.rand(4, channels, 6, 6, generator=torch.Generator().manual_seed(1))


class Operations(TorchDispatchMode):
    """Counts what torch really runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def operations(call: nn.Module) -> list[str]:
    call.zero_grad()
    with Operations() as counter:
        call(picture()).sum().backward()
    return counter.seen


@pytest.mark.parametrize("options", [{}, {"variant": "dual", "input_rule": "zbox"}, {"deep_supervision": ["bn1"]}])
def test_a_plain_call_runs_the_model_s_own_operations(options):
    model = Small()
    isnet = ISNet(model, **options)
    assert operations(isnet) == operations(model)
    with isnet.watching():
        watched = operations(model)
    assert watched != operations(model)  # the comparison can tell


@pytest.mark.parametrize("variant", ["selective", "stochastic", "dual", "original"])
def test_a_training_model_moves_as_after_a_call_of_its_own(variant):
    """Frozen layers stay frozen; batch norm has seen the batch once, and dropout has drawn once."""
    models = [Small(), Small()]
    for model in models:
        model.train()
        model.bn2.eval()
        model.conv1.weight.requires_grad_(False)
    x = picture()
    torch.manual_seed(5)
    models[0](x)
    after = torch.get_rng_state()
    model = models[1]
    modes = [m.training for m in model.modules()]
    needs = [p.requires_grad for p in model.parameters()]
    places = [(id(t), t.data_ptr()) for t in (*model.parameters(), *model.buffers())]
    attributes = [sorted(vars(m)) for m in model.modules()]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(5)
    ISNet(model, variant).explain(x, generator=generator)
    assert torch.equal(torch.get_rng_state(), after)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == needs
    assert [(id(t), t.data_ptr()) for t in (*model.parameters(), *model.buffers())] == places
    assert [sorted(vars(m)) for m in model.modules()] == attributes
    assert all(p.grad is None for p in model.parameters())
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_another_thread_s_forward_and_backward_passes_are_plain():
    """A loader's thread that runs a network while the main thread is in the middle of an explained forward pass."""
    other, x = Small().eval(), picture().requires_grad_()
    (expected,) = torch.autograd.grad(other(x).sum(), x)
    outputs: list[Tensor] = []

    def work() -> None:
        outputs.extend(torch.autograd.grad(other(x).sum(), x))

    class Threaded(Small):
        def forward(self, image: Tensor) -> Tensor:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            return super().forward(image)

    ISNet(Threaded()).explain(picture())
    assert torch.equal(outputs[0], expected)


class Smoothed(Dataset):
    """A data set that computes with torch, in the loader's processes."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        torch.manual_seed(index)
        image = torch.rand(3, 6, 6, requires_grad=True)
        (gradient,) = torch.autograd.grad(F.gelu(image).square().sum(), image)
        return gradient


def test_a_loader_s_workers_are_untouched():
    """In a process of its own: autograd's threads, which other tests may have started, do not survive a fork."""
    path = [str(Path(__file__).parent), *sys.path]
    code = f"import sys; sys.path[:] = {path!r}; import test_wrapper_guest; test_wrapper_guest.load()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def load() -> None:
    """Forked workers compute beside a watch as they do without one."""
    data, isnet = Smoothed(), ISNet(Small())
    expected = torch.stack([data[i] for i in range(6)])
    seen = []
    with isnet.watching() as watch:
        for batch in DataLoader(data, batch_size=2, num_workers=2):
            seen.append(batch)
            isnet.model(batch)
            watch.explain()
    assert torch.equal(torch.cat(seen), expected)


def test_channels_that_do_not_fit_are_named():
    three = {"input_rule": "zbox", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2)}
    with pytest.raises(ValueError, match=r"image: expected 3 channels, as mean and std have, got .*\(4, 1, 6, 6\)"):
        ISNet(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 5)), **three).explain(picture(1))
    with pytest.raises(ValueError, match=r"std: expected as many numbers as mean has \(3\), got 2"):
        ISNet(Small(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3))
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 4 channels"):  # the model's own words
        ISNet(Small()).explain(picture(4))
    assert ISNet(Small(), input_rule="zbox", mean=(0.5,)).explain(picture()).relevance.isfinite().all()


def test_pixels_out_of_the_box_are_warned_of():
    normalised = {"input_rule": "zbox", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2)}
    with pytest.warns(UserWarning, match=r"pixels lie in \[0, 1\], the image's lie in \[-.*pass the mean and std"):
        ISNet(Small(), input_rule="zbox").explain(picture() * 4 - 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ISNet(Small(), **normalised).explain((picture() - 0.5) / 0.3)
        ISNet(Small(), input_rule="zbox").explain(picture())


def test_images_made_in_inference_mode():
    isnet = ISNet(Small().eval())
    with torch.inference_mode():
        image = picture() * 1
    expected = isnet.explain(picture() * 1)
    torch.testing.assert_close(isnet.explain(image).relevance, expected.relevance)
    with pytest.raises(ValueError, match=r"image: made in inference mode; explain\(image\)"), isnet.watching():
        isnet.model(image)
    with isnet.watching() as watch, torch.no_grad():
        isnet.model(picture())
    with pytest.raises(RuntimeError, match="no forward pass of Small with gradients enabled"):
        watch.explain()
