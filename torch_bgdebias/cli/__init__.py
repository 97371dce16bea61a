"""The ``bgdebias`` console command.

A command is a file or a folder of this package, named in ``COMMANDS``, with ``add_parser(subparsers)`` and
``run(args) -> int``. Neither it nor what it imports at its top imports torch: that happens in ``run``, so that
``--help`` stays quick. What only some command needs lies in that command's folder.

Exit codes: 0 done, 1 failed (one line on stderr; ``--debug`` shows the traceback), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from types import ModuleType
from typing import Any

from torch_bgdebias._version import __version__
from torch_bgdebias.cli.colours import coloured
from torch_bgdebias.cli.options import add_options
from torch_bgdebias.cli.suggestions import Parser, options_of, refuse_unknown

__all__ = ["build_parser", "main"]

#: errors that a user can act on; anything else is a defect of the program and keeps its traceback
EXPECTED = (ValueError, LookupError, OSError, ImportError)

#: arguments of functions -> options that are called otherwise
_OPTIONS = {"num_classes": "classes"}

_EPILOG = """\
examples:
  bgdebias demo                                    measure, fix and report on embedded data, in minutes
  bgdebias demo --foregrounds DIR --backgrounds DIR     the same on your own objects and scenes
  bgdebias probe --model torchvision:resnet18 --checkpoint best.pt --data DIR     a report on your own model
  bgdebias backgrounds generate scenes --source scenes     backgrounds to put objects on
  bgdebias COMMAND --help                          what a command takes, with examples

exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage, 130 interrupted
"""


#: in the order of ``bgdebias --help``
COMMANDS = ("audit", "backgrounds", "certify", "completion", "demo", "discover", "doctor", "head", "masks", "plan",
            "probe", "report", "train", "variants")  # fmt: skip


def command_modules() -> list[ModuleType]:
    """The modules of the commands."""
    return [importlib.import_module(f"{__name__}.{name}") for name in COMMANDS]


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, Callable[[argparse.Namespace], int]]]:
    """The parser of the whole command line, and what runs each command."""
    parser = Parser(
        prog="bgdebias",
        description="Measure and remove background bias in image classifiers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"torch_bgdebias {__version__}")
    add_options(parser, "--debug", default=False, help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    parser.set_defaults(commands=subparsers.choices)
    runs: dict[str, Callable[[argparse.Namespace], int]] = {}
    for module in command_modules():
        earlier_choices = set(subparsers.choices)
        module.add_parser(subparsers)
        for name in set(subparsers.choices) - earlier_choices:
            runs[name] = module.run
            _accept_debug(subparsers.choices[name])
            subparsers.choices[name].set_defaults(options=options_of(subparsers.choices[name]))
    return parser, runs


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``bgdebias`` with ``argv`` (``sys.argv`` when ``None``) and return its exit code."""
    parser, runs = build_parser()
    arguments = _asking_for_help(list(sys.argv[1:] if argv is None else argv))
    try:
        refuse_unknown(arguments, parser)
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse leaves by itself: 0 after --help and --version, 2 after a usage error
        return stop.code if isinstance(stop.code, int) else 2
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        with _warnings_in_a_line(args.command):
            return int(runs[args.command](args))
    except KeyboardInterrupt:
        print(f"bgdebias {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED as error:
        if args.debug:
            traceback.print_exc()
        else:
            mark = coloured("error:", "error", sys.stderr)
            print(f"bgdebias {args.command}: {mark} {_with_options(one_line(error), args.options)}", file=sys.stderr)
        return 1


def _asking_for_help(words: list[str]) -> list[str]:
    """``help``, ``help COMMAND`` (with its action) and ``version`` as the options that they stand for."""
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    return ["--version"] if words == ["version"] else words


@contextlib.contextmanager
def _warnings_in_a_line(command: str) -> Iterator[None]:
    """Warnings to users in one line each; deprecations as Python shows them."""
    format_before = warnings.formatwarning

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category is not UserWarning:
            return format_before(message, category, filename, lineno, line)
        return f"bgdebias {command}: warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = shown
    try:
        yield
    finally:
        warnings.formatwarning = format_before


def one_line(error: BaseException) -> str:
    """The message of an error on one line; a KeyError without its quotes, the system's errors without their number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    quoted = isinstance(error, KeyError) and error.args and isinstance(error.args[0], str)
    text: Any = error.args[0] if quoted else error
    return " ".join(str(text).split()) or type(error).__name__


def _with_options(text: str, accepted: Collection[str]) -> str:
    """Arguments by which a message begins, ``mean, std: expected ...``, as the options that stand for them here."""
    names, colon, message = text.partition(": ")
    options = [f"--{_OPTIONS.get(name, name).replace('_', '-')}" for name in names.split(", ")]
    return f"{', '.join(options)}{colon}{message}" if colon and set(options) <= set(accepted) else text


def _accept_debug(parser: argparse.ArgumentParser) -> None:
    """Take ``--debug`` after the command too, without overwriting one that stands before it."""
    if "-" in parser.prefix_chars and "--debug" not in parser.format_usage():
        add_options(parser, "--debug")
