"""What is mistyped is named, with what was meant."""

from __future__ import annotations

import pytest

from torch_bgdebias import cli


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["prob"], "unknown command 'prob'; did you mean probe?"),
        (["backgrounds", "genrate"], "unknown command 'genrate'; did you mean generate?"),
        (["xyz"], "unknown command 'xyz'; there are audit, backgrounds, certify, completion"),
        (["probe", "--modle", "x"], "unknown option --modle; did you mean --model"),
        (["probe", "--data=x", "--modle=x"], "unknown option --modle; did you mean --model"),
        (["backgrounds", "generate", "out", "--sorce", "scenes"], "unknown option --sorce; did you mean --source?"),
        (["--versoin"], "unknown option --versoin; did you mean --version?"),
        (["demo", "--zzzzzz"], "unknown option --zzzzzz"),
        (["probe", "-m", "torchvision:resnet18"], "unknown option -m"),
        (["probe", "-modle", "torchvision:resnet18"], "unknown option -modle; did you mean --model?"),
    ],
)
def test_what_is_unknown_is_named_first(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before options that are missing: whoever mistyped --model has not forgotten it."""
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert "usage: bgdebias" in err
    assert said in err.splitlines()[-1]
    assert "required" not in err
