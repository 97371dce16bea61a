"""Scripts that complete: run in the shells that are there."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from torch_bgdebias import cli
from torch_bgdebias.cli.completion import SHELLS, script
from torch_bgdebias.names import SUPERCLASS_SCORES


def text(shell: str) -> str:
    return script(shell, cli.build_parser()[0].get_default("commands"))


def completed(words: list[str]) -> list[str]:
    """What bash offers for the last of these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _bgdebias; printf "%s\\n" "${{COMPREPLY[@]}}"'
    code = f"{text('bash')}\n{ask}"
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bgdebias", ""], sorted([*cli.COMMANDS, "--help", "--version", "--debug"])),
        (["bgdebias", "pr"], ["probe"]),
        (["bgdebias", "probe", "--check"], ["--checkpoint"]),
        (["bgdebias", "probe", "--checkpoint", "x.pt", "--score", ""], sorted(SUPERCLASS_SCORES)),
        (["bgdebias", "--debug", "report", "--ov"], ["--overwrite"]),
        (["bgdebias", "backgrounds", "gen"], ["generate"]),
        (["bgdebias", "backgrounds", "generate", "out", "--sour"], ["--source"]),
        (["bgdebias", "completion", "f"], ["fish"]),
    ],
)
def test_bash_completes(words: list[str], expected: list[str]) -> None:
    assert sorted(completed(words)) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_of_every_command_is_in_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert shown == text(shell)
    for name, parser in cli.build_parser()[0].get_default("commands").items():
        assert name in shown
        for action in parser._actions:
            for option in action.option_strings:
                if option.startswith("--"):
                    assert (option if shell != "fish" else f"-l {option[2:]}") in shown, (name, option)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_shell_can_read_it(shell: str, tmp_path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    file = tmp_path / "script"
    file.write_text(text(shell))
    subprocess.run([shell, "-n", file], check=True, timeout=30)
