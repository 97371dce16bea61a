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
        (["audit", "--data", "x"], "unknown option --data; DATA stands by itself: bgdebias audit DATA"),
        (["probe", "-m", "torchvision:resnet18"], "unknown option -m"),
        (["probe", "-modle", "torchvision:resnet18"], "unknown option -modle; did you mean --model?"),
    ],
)
def test_what_is_unknown_is_named_first(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before options that are missing: whoever mistyped --model has not forgotten it."""
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert said in err
    assert "required" not in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["probe", "--layout", "foldr"],
            "bgdebias probe: error: --layout: expected one of folder, imagenet9, voc, got foldr; did you mean folder?",
        ),
        (
            ["probe", "--model", "x", "--data", "y", "--variants", "mixed_same,mixed_randd"],
            "got mixed_randd; did you mean mixed_rand?",
        ),
        (["completion", "bsh"], "shell: expected one of bash, zsh, fish, got bsh; did you mean bash?"),
        (["probe", "--size", "²"], "bgdebias probe: error: --size: expected a whole number of at least 1, got ²"),
        (["probe", "--size", "none"], "bgdebias probe: error: --size: expected a whole number of at least 1, got none"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Thirty lines of usage came first, and what was meant was not said."""
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert said in err
