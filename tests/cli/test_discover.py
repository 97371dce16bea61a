"""``bgdebias discover`` from a folder and a network to a page; its refusals."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.cli import main

pytest.importorskip("sklearn")

NETWORK = '''
import torch
from torch import nn

SIDE = 16


class ReadsMark(nn.Module):
    """Class 1 by the brightness of the top left corner, both by that of the middle."""

    def __init__(self):
        super().__init__()
        self.flatten, self.fc = nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2, bias=False)
        weight = torch.zeros(2, 3, SIDE, SIDE)
        weight[:, :, 5:11, 5:11] = 0.2
        weight[1, :, :3, :3] = 1.0
        self.fc.weight.data = weight.flatten(1)

    def forward(self, image):
        return self.fc(self.flatten(image))
'''


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two classes of forty pictures; fifteen of the second have a white square in a corner. No masks."""
    random = np.random.default_rng(0)
    for number in range(80):
        path = tmp_path / "data" / "images" / ("plane" if number < 40 else "ship") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        picture[:3, :3] = 255 if 40 <= number < 55 else 0
        Image.fromarray(picture).save(path)
    (tmp_path / "mark_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("mark_net", None)
    yield tmp_path
    sys.modules.pop("mark_net", None)


def arguments(data, *more):
    words = ["discover", "--model", "mark_net:ReadsMark", "--data", data / "data", "--out", data / "out"]
    return [str(word) for word in [*words, "--size", 16, "--device", "cpu", *more]]


def test_the_marked_pictures_lead_page_and_json(data, capsys):
    pytest.importorskip("zennit")
    assert main(arguments(data)) == 0
    printed = capsys.readouterr()
    assert "bgdebias discover: 80 pictures, LRP" in printed.err
    assert "top left" in printed.out.splitlines()[1]
    content = json.loads((data / "out" / "discover.json").read_text())
    first = content["clusters"][0]
    assert first["name"] == "ship"
    assert sorted(first["pictures"]) == [f"{number}.png" for number in range(40, 55)]
    page = (data / "out" / "discover.html").read_text()
    assert "What mark_net:ReadsMark looks at" in page
    assert "of ship, by what is at the top left" in page
    assert not (data / "out" / "UNFINISHED.txt").exists()
    assert main(arguments(data)) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert main(arguments(data, "--overwrite", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["clusters"] == content["clusters"], "the same seed, the same groups"


def test_outputs_in_another_order_by_labels(data, capsys):
    pytest.importorskip("zennit")
    (data / "labels.json").write_text('{"ship": 1, "plane": 0}')
    assert main(arguments(data, "--labels", data / "labels.json", "--json")) == 0
    straight = json.loads(capsys.readouterr().out)
    (data / "labels.json").write_text('{"ship": 0, "plane": 1}')
    assert main(arguments(data, "--labels", data / "labels.json", "--json", "--overwrite")) == 0
    turned = json.loads(capsys.readouterr().out)
    assert straight["classes"] == ["plane", "ship"]
    assert turned["classes"] == ["ship", "plane"]
    # the output that ships are now explained by does not read the corner
    marked = {f"{number}.png" for number in range(40, 55)}
    assert set(straight["clusters"][0]["pictures"]) == marked
    assert all(set(group["pictures"]) != marked for group in turned["clusters"] if group["space"] == "heatmaps")


def test_a_folder_with_masks_does_not_need_them(data, capsys):
    pytest.importorskip("zennit")
    (data / "data" / "masks" / "ship").mkdir(parents=True)
    (data / "data" / "masks" / "ship" / "40.png").write_text("no picture")
    assert main(arguments(data, "--json")) == 0
    assert sum(len(group["pictures"]) for group in json.loads(capsys.readouterr().out)["clusters"]) >= 15


def test_grad_cam_and_classes_of_a_named_network(data, capsys):
    pytest.importorskip("timm")
    words = ["discover", "--model", "timm:test_resnet", "--data", str(data / "data"), "--out", str(data / "out")]
    assert main([*words, "--size", "32", "--attribution", "grad_cam", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["method"] == "Grad-CAM"
    assert "the weights are random" in printed.err


def test_a_checkpoint_s_normalisation_is_used(data, capsys):
    pytest.importorskip("zennit")
    from mark_net import ReadsMark

    from torch_bgdebias.checkpoints import NOTES, notes_for_checkpoint
    from torch_bgdebias.preprocessing import Preprocessing

    wanted = Preprocessing(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    state = {"state_dict": ReadsMark().state_dict(), NOTES: notes_for_checkpoint(wanted, ["ship", "plane"])}
    torch.save(state, data / "best.pt")
    assert main(arguments(data, "--checkpoint", data / "best.pt", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["ship", "plane"], "as the checkpoint numbers them"
    assert "What best.pt looks at" in (data / "out" / "discover.html").read_text()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--images", "3"], "--images: expected at least 20, or 0 for all, got 3"),
        (["--mean", "0.5"], "--mean and --std: expected both or none, got only --mean"),
        (["--checkpoint", "gone.pt"], "--checkpoint: expected a file or folder, found nothing at gone.pt"),
        (["--data", "gone"], "--data: expected a file or folder, found nothing at gone"),
        (["--classes", "ship"], "the model has 2 outputs and the data 1 classes"),
    ],
)
def test_refusals(data, capsys, more, text):
    assert main(arguments(data, *more)) == 1
    assert text in capsys.readouterr().err
    assert not (data / "out" / "discover.json").exists()


def test_a_wrong_path_is_said_before_torch_is_imported(tmp_path):
    code = (
        "import sys; from torch_bgdebias.cli import main; "
        "rc = main(['discover', '--model', 'a:b', '--data', 'gone']); assert rc == 1; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "found nothing at gone" in done.stderr
