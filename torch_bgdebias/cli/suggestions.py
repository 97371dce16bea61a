"""Unknown commands and options: reported before any other error, with the likely intended one."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

__all__ = ["Parser", "did_you_mean", "options_of", "refuse_unknown"]

#: what argparse says of a value that is none of the choices, before and from Python 3.12
_CHOICE = re.compile(r"(argument [^:]+): invalid choice: (.+) \(choose from (.+)\)$", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports what is wrong in one line with the likely intended word, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        if not message.startswith("argument "):
            self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help says more)\n")
        if (match := _CHOICE.match(message)) is not None:
            argument, value, choices_text = match.groups()
            value, choices = value.strip("'\""), [choice.strip("'\"") for choice in choices_text.split(", ")]
            message = f"{argument}: expected one of {', '.join(choices)}, got {value}{did_you_mean(value, choices)}"
        self.exit(2, f"{self.prog}: error: {message.removeprefix('argument ')}\n")


def did_you_mean(word: str, words: Collection[str]) -> str:
    """``"; did you mean --model?"``, or nothing where none of the words is near."""
    close_matches = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean {close_matches[0]}?" if close_matches else ""


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """The long options of a command, as its usage shows them."""
    return sorted({*re.findall(r"(?<![\w-])--[\w-]+", parser.format_usage()), "--debug", "--help"})


def refuse_unknown(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Exit with code 2 at the first unknown command or option.

    argparse itself complains of missing options first: ``--modle x`` would be answered that ``--model`` is required.
    Parsers that have commands keep them, by name, as their default for ``commands``.

    Raises:
        SystemExit: of argparse, after it has printed the usage and the reason.
    """
    if "-" not in parser.prefix_chars:  # what follows is for another program's parser
        return
    commands: Mapping[str, argparse.ArgumentParser] = parser.get_default("commands") or {}
    options = options_of(parser)
    for position, word in enumerate(words):
        if word == "--":
            return
        option = word.partition("=")[0]
        if option.startswith("--"):
            if not any(full.startswith(option) for full in options):
                place = option.removeprefix("--").upper()
                by_place = place in parser.format_usage().split()[-2:]
                hint = (
                    f"; {place} stands by itself: {parser.prog} {place}" if by_place else did_you_mean(option, options)
                )
                parser.error(f"unknown option {option}{hint}")
        elif re.match(r"-[A-Za-z]", word) and word[:2] not in re.findall(r"(?<![\w-])-\w", parser.format_usage()):
            parser.error(f"unknown option {word}{did_you_mean(f'-{word}', options)}")
        elif commands and not word.startswith("-"):
            if word not in commands:
                hint = did_you_mean(word, commands) or f"; there are {', '.join(commands)}"
                parser.error(f"unknown command {word!r}{hint}")
            refuse_unknown(words[position + 1 :], commands[word])
            return
