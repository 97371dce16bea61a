"""The command line's frame: discovery of commands, exit codes, one-line errors."""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from types import ModuleType
from typing import Any

import pytest

from torch_bgdebias import __version__, cli
from torch_bgdebias.cli.arguments import refuse_results


def fake_command(name: str, behaviour: Any) -> ModuleType:
    module = ModuleType(f"torch_bgdebias.cli.{name}")
    module.add_parser = lambda subparsers: subparsers.add_parser(name)  # type: ignore[attr-defined]
    module.run = behaviour  # type: ignore[attr-defined]
    return module


def raises(error: BaseException) -> Any:
    def run(_: argparse.Namespace) -> int:
        raise error

    return run


@pytest.fixture
def with_command(monkeypatch: pytest.MonkeyPatch):
    def install(behaviour: Any) -> None:
        monkeypatch.setattr(cli, "command_modules", lambda: [fake_command("trial", behaviour)])

    return install


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_help_lists_every_command_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    _, runs = cli.build_parser()
    assert {"demo", "masks"} <= set(runs)
    assert set(runs) <= {line.split()[0] for line in out.splitlines() if line.startswith("    ") and line[4] != " "}
    assert "examples:" in out


def test_every_command_has_help_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.build_parser()[1]:
        assert cli.main([name, "--help"]) == 0
        assert "examples:" in capsys.readouterr().out, name


def test_without_a_command_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: bgdebias" in captured.err


@pytest.mark.parametrize("argv", [["nothing"], ["demo", "--nothing"], ["demo", "--epochs"]])
def test_usage_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith(("bgdebias: error: ", "bgdebias demo: error: "))
    assert len(err.splitlines()) == 1, "twenty lines of usage hide what is wrong"
    assert ("--help says more" in err) is (argv != ["demo", "--epochs"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["help"], "usage: bgdebias [-h]"),
        (["help", "probe"], "usage: bgdebias probe"),
        (["help", "backgrounds", "filter"], "usage: bgdebias backgrounds filter"),
        (["version"], "torch_bgdebias 0."),
    ],
)
def test_help_and_version_need_no_dashes(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith(said)
    assert cli.main(["help", "prob"]) == 2
    assert "unknown command 'prob'; did you mean probe?" in capsys.readouterr().err


def test_options_may_be_cut_short_and_values_may_look_like_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--he"]) == 0
    capsys.readouterr()
    assert cli.main(["report", "--title", "x", "--", "--absent.json"]) == 1
    assert "--absent.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a\n  b"), "a b"),
        (FileNotFoundError("/x is not there"), "/x is not there"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: no such file or directory"),
        (KeyError("layer 'x' is not in it"), "layer 'x' is not in it"),
        (KeyError(3), "3"),
        (ImportError("needs cv2: pip install 'torch_bgdebias[opencv]'"), "needs cv2: pip install"),
        (LookupError(), "LookupError"),
    ],
)
def test_expected_errors_are_one_line(
    error: Exception, text: str, with_command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with_command(raises(error))
    assert cli.main(["trial"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("bgdebias trial: error: ")
    assert text in err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model: no such thing", "--model: no such thing"),
        ("batch_size: expected a whole number", "--batch-size: expected a whole number"),
        ("mean, std: expected both or none", "--mean, --std: expected both or none"),
        ("num_classes: expected none", "--classes: expected none"),
        ("mean, sdt: expected both or none", "mean, sdt: expected both or none"),
        ("/x: no such file", "/x: no such file"),
        ("batch: expected a tuple", "batch: expected a tuple"),
        ("--model: no such thing", "--model: no such thing"),
        ("model", "model"),
    ],
)
def test_arguments_are_named_as_options(text: str, shown: str, monkeypatch: Any, capsys: Any) -> None:
    module = fake_command("trial", raises(ValueError(text)))
    options = ("--model", "--batch-size", "--mean", "--std", "--classes")

    def add_parser(subparsers: Any) -> None:
        parser = subparsers.add_parser("trial")
        for option in options:
            parser.add_argument(option)

    module.add_parser = add_parser  # type: ignore[attr-defined]
    monkeypatch.setattr(cli, "command_modules", lambda: [module])
    assert cli.main(["trial"]) == 1
    assert capsys.readouterr().err == f"bgdebias trial: error: {shown}\n"


@pytest.mark.parametrize("argv", [["--debug", "trial"], ["trial", "--debug"]])
def test_debug_shows_the_traceback(argv: list[str], with_command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with_command(raises(ValueError("broken")))
    assert cli.main(argv) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ValueError: broken" in err


def test_defects_keep_their_traceback(with_command: Any) -> None:
    with_command(raises(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["trial"])


def test_interrupted(with_command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with_command(raises(KeyboardInterrupt()))
    assert cli.main(["trial"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_command_chooses_its_exit_code(with_command: Any) -> None:
    with_command(lambda _: 3)
    assert cli.main(["trial"]) == 3


HELPS = [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)]


@pytest.mark.parametrize("argv", HELPS, ids=" ".join)
def test_help_imports_no_torch(argv: list[str]) -> None:
    """Seen in a fresh process, as the console script starts; how long it took is printed, never judged."""
    code = (
        "import sys, time; start = time.perf_counter(); from torch_bgdebias.cli import main; code = main(sys.argv[1:]);"
        "print(f'{time.perf_counter() - start:.3f} s', file=sys.stderr);"
        "heavy = {'torch', 'numpy', 'pytorch_lightning', 'matplotlib', 'kornia', 'zennit', 'torchvision', 'timm'};"
        "sys.exit(sorted(heavy & set(sys.modules)) or code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    print("bgdebias", *argv, done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_results_that_are_there_are_kept(tmp_path, capsys):
    """One rule for all commands: inputs first, then what is there; a run that was stopped is written anew."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("before")
    page = tmp_path / "page.html"
    page.write_text("before")
    for words, what in (
        (
            ["probe", "--model", "a:b", "--data", tmp_path, "--out", out],
            f"--data: {tmp_path}: expected images/<class>/",
        ),
        (["demo", "--out", out], f"{out} holds report.html already"),
        (["report", "nothing.json", "--out", page], "nothing.json"),
    ):
        assert cli.main([str(word) for word in words]) == 1
        assert what in capsys.readouterr().err
    refuse_results(out, ("report.html",), overwrite=True)
    refuse_results(out, ("other.html",), overwrite=False)
    with pytest.raises(FileExistsError, match=r"--out: .*page.html exists already; pass --overwrite or another name"):
        refuse_results(page, (), overwrite=False)
    (out / "UNFINISHED.txt").write_text("")
    refuse_results(out, ("report.html",), overwrite=False)
    assert (out / "report.html").read_text() == page.read_text() == "before"


def test_warnings_are_one_line_and_python_has_its_own_way_back(with_command: Any, capsys: Any) -> None:
    def warn(_: argparse.Namespace) -> int:
        for category in (UserWarning, FutureWarning):
            shown = warnings.formatwarning(category("two\n  lines"), category, "somewhere.py", 7)
            print(shown, file=sys.stderr, end="")
        return 0

    before = warnings.formatwarning
    with_command(warn)
    assert cli.main(["trial"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("bgdebias trial: warning: two lines\n")
    assert "somewhere.py:7: FutureWarning" in err
    assert warnings.formatwarning is before
