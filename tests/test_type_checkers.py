"""What mypy and pyright make of an installed copy: the real classes, and errors where calls are wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "torch_bgdebias"

PROGRAM = """\
import torch_bgdebias
from torch_bgdebias import CLADLoss, callbacks, data

reveal_type(torch_bgdebias.BackgroundSwap)
reveal_type(callbacks.CLADCallback)
reveal_type(data.MaskedImageFolder)
reveal_type(torch_bgdebias.evaluate_background_bias)
reveal_type(torch_bgdebias.swap.BackgroundSwap(p=0.5))
CLADLoss(num_classes="three")
torch_bgdebias.BackgroundSwap(patern="paste")
torch_bgdebias.BackgroundSwop
CLADLoss(num_classes=3)
"""
#: line -> what the checkers must show there
REVEALED = {4: "BackgroundSwap", 5: "CLADCallback", 6: "MaskedImageFolder", 7: "BackgroundBiasReport"}
INSTANCE = {8: "BackgroundSwap"}
WRONG = {9: "three|num_classes|int", 10: "patern", 11: "BackgroundSwop"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Iterator[Path]:
    """The interpreter of an environment that has a copy of the package beside this one's other packages."""
    root = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "env")], check=True)
    site = next((root / "env").glob("lib/python*/site-packages"))
    shutil.copytree(PACKAGE, site / "torch_bgdebias", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (site / "partners.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (root / "program.py").write_text(PROGRAM)
    yield root
    shutil.rmtree(root)


def lines_of(messages: list[tuple[int, str]]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for line, message in messages:
        texts[line] = f"{texts.get(line, '')} {message}"
    return texts


def check(shown: dict[int, str], errors: dict[int, str]) -> None:
    for line, name in REVEALED.items():
        assert name in shown[line], (line, shown)
        assert not re.search(r'"?\bAny"?$', shown[line].strip()), shown[line]
    assert re.search(rf"\b{INSTANCE[8]}\W*$", shown[8].strip()), shown[8]
    for line, text in WRONG.items():
        assert re.search(text, errors.get(line, "")), (line, errors)
    assert set(errors) == set(WRONG), errors


MYPY_SETTINGS = """\
[mypy]
strict = true
[mypy-kornia.*,torchvision.*,scipy.*]
follow_imports = skip
ignore_missing_imports = true
"""


def test_mypy(installed, request):
    """Takes a minute or more the first time: mypy reads all of torch; what it learnt of it is kept between runs."""
    pytest.importorskip("mypy")
    (installed / "mypy.ini").write_text(MYPY_SETTINGS)
    command = [sys.executable, "-m", "mypy", "--python-executable", str(installed / "env/bin/python")]
    command += ["--cache-dir", str(request.config.cache.mkdir("bgdebias-mypy"))]
    done = subprocess.run([*command, "program.py"], cwd=installed, capture_output=True, text=True, check=False)
    findings = re.findall(r"^program\.py:(\d+): (\w+): (.*)$", done.stdout, re.M)
    shown = lines_of([(int(line), text) for line, kind, text in findings if kind == "note"])
    check(shown, lines_of([(int(line), text) for line, kind, text in findings if kind == "error"]))


def test_pyright(installed):
    pytest.importorskip("pyright")
    settings = {"venvPath": ".", "venv": "env", "include": ["program.py"], "reportUnusedExpression": False}
    (installed / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "-p", str(installed)]
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    messages = [
        (entry["range"]["start"]["line"] + 1, entry["severity"], entry["message"])
        for entry in json.loads(done.stdout)["generalDiagnostics"]
    ]
    shown = lines_of([(line, text) for line, kind, text in messages if kind == "information"])
    check(shown, lines_of([(line, text) for line, kind, text in messages if kind == "error"]))
