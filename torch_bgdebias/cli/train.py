"""``bgdebias train``: LightningCLI, with models, data and callbacks by class path in YAML."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import math
import re
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from torch_bgdebias.cli.options import Subparsers
from torch_bgdebias.cli.yaml_files import require_bounded

__all__ = ["EXAMPLE", "SCHEMA", "add_parser", "condensed", "run"]

#: name and version of the layout of what ``--json`` prints
SCHEMA = "torch_bgdebias.train/1"
_SUBCOMMANDS = ("fit", "validate", "test", "predict")

EXAMPLE = """\
# bgdebias train --config train.yaml
seed_everything: 0
model:
  class_path: torch_bgdebias.train.ImageClassifier   # or any LightningModule of yours
  init_args: {network: "torchvision:resnet18", num_classes: 19}   # as many as data/train/images has folders
data:
  class_path: torch_bgdebias.train.MaskedFolders     # or any LightningDataModule of yours
  init_args: {train: data/train, val: data/val, size: 160, batch_size: 32}
trainer:
  max_epochs: 10
  callbacks:
    - class_path: torch_bgdebias.callbacks.BackgroundSwapCallback
      init_args:
        swap:
          class_path: torch_bgdebias.BackgroundSwap
          init_args: {source: batch, pattern: voronoi}
    - class_path: torch_bgdebias.callbacks.BackgroundBiasProbe
      init_args:
        every_n_epochs: 1
        figures: false
    - class_path: ModelCheckpoint
      init_args: {monitor: bias/worst_variant, mode: max}
    - class_path: ModelCheckpoint                      # the last epoch: save_last would copy the best one
      init_args: {filename: last, enable_version_counter: false}
"""

_HELP = """\
usage: bgdebias train [fit | validate | test | predict] [--config FILE] [--OPTION VALUE ...] [--overwrite] [--json]

Train any LightningModule with this package's callbacks (or any others), named by class path in a YAML file. This is
Lightning's own command line (LightningCLI): every setting of Trainer, model, data and callbacks can be in the file or
on the command line, which wins. Without a subcommand: fit.

options:
  --config FILE        settings; may be given several times, later ones win
  --print_config       print all settings, with their defaults
  --example            print a file to start from
  --ckpt_path FILE     resume from (fit), or measure, a checkpoint
  --overwrite          train into a folder that holds the results of another training
  --json               print the last metrics and the best checkpoint as JSON
  --debug              show the traceback of an error
  fit --help           every option of Lightning's command line

examples:
  bgdebias train --example > train.yaml
  bgdebias train --config train.yaml
  bgdebias train --config train.yaml --trainer.max_epochs 3 --data.init_args.batch_size 16
  bgdebias train --config train.yaml --ckpt_path lightning_logs/version_0/checkpoints/last.ckpt
  bgdebias train validate --config train.yaml --ckpt_path best.ckpt --json
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``train`` to the command line; what follows it is Lightning's to read, options too."""
    parser = subparsers.add_parser(
        "train",
        help="train a LightningModule with these callbacks, from a YAML file",
        add_help=False,
        prefix_chars="\0",  # nothing is an option here
    )
    parser.add_argument("arguments", nargs="*")


def run(args: argparse.Namespace) -> int:
    """Hand the arguments to LightningCLI; print what came out."""
    arguments = list(args.arguments)
    flags = {name: name in arguments for name in ("--json", "--debug", "--example", "--overwrite")}
    arguments = [argument for argument in arguments if argument not in flags]
    args.debug = args.debug or flags["--debug"]
    if (not arguments and not flags["--example"]) or arguments[:1] in (["-h"], ["--help"]):
        print(_HELP, end="")
        return 0 if arguments else 2
    if flags["--example"]:
        print(EXAMPLE, end="")
        return 0
    _require_settings(arguments)
    if arguments[0].startswith("-"):
        arguments.insert(0, "fit")
    if arguments[0] not in _SUBCOMMANDS:
        raise ValueError(f"train: expected one of {', '.join(_SUBCOMMANDS)} or an option, got {arguments[0]!r}")
    # only a training that begins writes where another one's results may be; one that goes on writes beside its own
    overwrite = (
        flags["--overwrite"]
        or arguments[0] != "fit"
        or any(argument.startswith("--ckpt_path") for argument in arguments)
    )
    return _lightning(arguments, as_json=flags["--json"], overwrite=overwrite)


def _require_settings(words: list[str]) -> None:
    """Refuse a file of settings that is not there, or a bomb, before Lightning is imported, which takes its time."""
    for previous, argument in zip(["", *words], words, strict=False):
        name, equals, value = argument.partition("=")
        file = argument if previous == "--config" else value if equals and name == "--config" else None
        if file is not None and not Path(file).exists():
            raise FileNotFoundError(f"--config: expected a file, found nothing at {file}")
        if file is not None and Path(file).is_file():
            require_bounded(Path(file))


def _lightning(arguments: list[str], *, as_json: bool, overwrite: bool) -> int:
    from torch_bgdebias._optional import require

    require("jsonargparse", purpose="bgdebias train")
    from torch_bgdebias.lightning.packages import choose

    package = choose(_classes_named(arguments)).__name__
    misconfiguration = importlib.import_module(f"{package}.utilities.exceptions").MisconfigurationException
    lightning = importlib.import_module(f"{package}.cli")

    argv = sys.argv
    sys.argv = ["bgdebias train", *arguments]  # where Lightning looks; it warns of arguments that are handed over
    try:
        # with --json the result stands alone on stdout, without Lightning's tables
        with warnings.catch_warnings(), redirect_stdout(sys.stderr if as_json else sys.stdout):
            # Lightning's use of jsonargparse, which cannot be changed here
            warnings.filterwarnings("ignore", module=rf"{re.escape(package)}\.cli")
            cli = _with_short_errors(lightning.LightningCLI, package)(
                parser_kwargs={"prog": "bgdebias train"},
                parser_class=_whole_settings(lightning.LightningArgumentParser),
                save_config_kwargs={"overwrite": overwrite},
            )
    except SystemExit as stop:  # its parser has printed the reason, or the requested output
        return stop.code if isinstance(stop.code, int) else 2
    except misconfiguration as error:  # what Lightning calls a setting that does not fit
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        if existing := re.search(r"expected (\S+) to NOT exist", str(error)):
            folder = Path(existing.group(1)).parent
            raise FileExistsError(
                f"--trainer.logger: {folder} holds the results of another training already; pass --overwrite or "
                "another name or version"
            ) from error
        raise _one_line_error(error) from error
    except LookupError as error:  # a network that does not take the images, a step that misses a key
        raise _one_line_error(error) from error
    except ValueError as error:
        raise ValueError(condensed(str(error))) from error
    finally:
        sys.argv = argv
    _print_result(cli.trainer, as_json=as_json)
    return 0


def _one_line_error(error: Exception) -> ValueError:
    """An error of the user's network or step, in one line."""
    first_line = str(error).splitlines()[0] if str(error) else ""
    return ValueError(f"{type(error).__name__}: {first_line}; --debug shows where")


def _print_result(trainer: Any, *, as_json: bool) -> None:
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    best = getattr(trainer.checkpoint_callback, "best_model_path", "") or None
    if as_json:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        result = {"schema": SCHEMA, "metrics": finite, "best_model": best, "log_dir": trainer.log_dir}
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        print("\n".join(f"{name:<40} {value:.4f}" for name, value in sorted(metrics.items())))
        if best:
            print(f"best checkpoint: {best}")


def _whole_settings(parser_class: Any) -> Any:
    """Lightning's parser, whose ``config.yaml`` is written whole or not at all."""
    from torch_bgdebias.writing import move_file

    class Whole(parser_class):  # type: ignore[misc]  # of the package that was chosen
        """Writes the settings into a part file that takes their name when all of them are there."""

        def save(self, namespace: Any, path: Any, *args: Any, **options: Any) -> None:
            if "://" in str(path) or Path(path).exists():  # remote; or to be refused, or written over
                super().save(namespace, path, *args, **options)
                return
            part_file = Path(f"{path}.part")
            part_file.unlink(missing_ok=True)
            super().save(namespace, part_file, *args, **options)
            move_file(part_file, path)

    return Whole


def _write_checkpoints_whole(trainer: Any, package: str) -> None:
    """Checkpoints beside their names until they are whole: Lightning's lie in the system's folder for such files,
    from where they are copied if that is another disk, and a run that is stopped meanwhile leaves a torso."""
    from torch_bgdebias.writing import save_content

    plain_io = importlib.import_module(f"{package}.plugins.io").TorchCheckpointIO
    try:
        checkpoint_io = trainer.strategy.checkpoint_io
    except NotImplementedError:  # a strategy that writes folders
        return
    if type(checkpoint_io) is not plain_io:
        return

    class Whole(plain_io):  # type: ignore[misc, valid-type]
        """Writes a part file, then renames it."""

        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            if storage_options is not None or "://" in str(path):
                super().save_checkpoint(checkpoint, path, storage_options)
                return
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            save_content(checkpoint, path)

    trainer.strategy.checkpoint_io = Whole()


def _with_short_errors(lightning_cli: Any, package: str) -> Any:
    """LightningCLI, whose parser says what is wrong in one line, and whose checkpoints are whole or not there."""

    class OneLine(lightning_cli):  # type: ignore[misc]  # of the package that was chosen
        """Says what is wrong with a file or an option without the parser's usage, which fills a screen."""

        def parse_arguments(self, parser: Any, args: Any) -> None:
            printed = io.StringIO()
            try:
                with redirect_stderr(printed):
                    super().parse_arguments(parser, args)
            except SystemExit as stop:
                if stop.code:
                    print(f"bgdebias train: error: {condensed(printed.getvalue())}", file=sys.stderr)
                raise

        def instantiate_trainer(self, **settings: Any) -> Any:
            trainer = super().instantiate_trainer(**settings)
            _write_checkpoints_whole(trainer, package)
            return trainer

    return OneLine


def condensed(text: str) -> str:
    """What matters of an error of the parser: the innermost class or key and what is wrong with it.

    Everything else is the list of what it tried, and the values that it was given.
    """
    text = text.rpartition("\nerror:")[2].strip()
    problem = r"Problem with given class_path '([^']+)':\s*(.*?)\s*(?=- Expected a |Given value|- Problem with|$)"
    key = re.search(r'Parser key "([^"]+)"', text)
    name = f"{key.group(1)}: " if key else ""
    if inner := re.findall(problem, text, re.DOTALL):
        location, reason = inner[-1]
        return f"{name}{location}: {' '.join(reason.split())}"
    attempts = re.findall(r"^ *- (.*(?:\n(?! *- | *Given value).*)*)", text, re.MULTILINE)
    if specific := [item for item in attempts if not item.startswith(("Expected a ", "Does not validate", "Subtypes"))]:
        return f"{name}{' '.join(specific[0].split())}"
    expected = re.findall(r"- (Expected a .*)", text)
    given_value = re.search(r"Given value: (.*)", text)
    if name and expected and given_value:
        return f"{name}{expected[0][0].lower()}{expected[0][1:]}, got {given_value.group(1)}"
    return " ".join(text.split())


def _classes_named(words: list[str]) -> list[str]:
    """Dotted names in the arguments and in the files that ``--config`` names: classes of models, data and callbacks."""
    texts = []
    for previous, argument in zip(["", *words], words, strict=False):
        name, _, value = argument.rpartition("=")
        if (previous == "--config" or name == "--config") and Path(value).is_file():
            texts += re.findall(r"^[^#\n]*", Path(value).read_text(errors="replace"), re.MULTILINE)
        else:
            texts.append(value)
    dotted = r"(?<![\w./-])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?![\w./-])"
    return list(dict.fromkeys(name for text in texts for name in re.findall(dotted, text)))
