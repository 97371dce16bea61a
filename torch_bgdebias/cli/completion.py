"""``bgdebias completion``: a completion script for bash, zsh or fish."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch_bgdebias.cli.options import Subparsers, add_command

__all__ = ["SHELLS", "add_parser", "run", "script"]

SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\
examples:
  bgdebias completion bash > ~/.local/share/bash-completion/completions/bgdebias
  bgdebias completion zsh > ~/.zfunc/_bgdebias          # with fpath+=~/.zfunc before compinit
  bgdebias completion fish > ~/.config/fish/completions/bgdebias.fish
  source <(bgdebias completion bash)                    # for this shell alone
"""

_BASH = """\
# completion of bgdebias for {shell}; written by: bgdebias completion {shell}
_bgdebias() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "${{command:+$command }}${{COMP_WORDS[i]}}" in
      {commands}) command="${{command:+$command }}${{COMP_WORDS[i]}}" ;;
    esac
  done
  case "$command $before" in
{values}
  esac
  case "$command" in
{options}
  esac
}}
complete -o default -F _bgdebias bgdebias
"""


class Words(NamedTuple):
    """What may follow a command: subcommands, options, and the values of an option."""

    commands: list[str]
    options: dict[str, list[str]]


def add_parser(subparsers: Subparsers) -> None:
    """Add ``completion`` to the command line."""
    parser = add_command(
        subparsers,
        "completion",
        about="a script for bash, zsh or fish that completes commands and options",
        description="Print a script by which a shell completes commands, options and their values.",
        epilog=_EPILOG,
    )
    parser.add_argument("shell", choices=SHELLS, help="for which shell")
    parser.set_defaults(whole_parser=lambda: subparsers.choices)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print(script(args.shell, args.whole_parser()), end="")
    return 0


def script(shell: str, commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """The script for a shell, made of the command line's own parsers."""
    table = {"": Words(list(commands), {"--help": [], "--version": [], "--debug": []})}
    for name, parser in commands.items():
        table |= dict(_tables(name, parser))
    return _fish(table) if shell == "fish" else _bash(table, shell)


def _tables(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, Words]]:
    """The words that may follow a command and each command below it."""
    nested = parser.get_default("commands") or {}
    values: list[str] = list(nested)
    options: dict[str, list[str]] = {}
    for action in parser._actions:
        choices = [str(choice) for choice in action.choices or ()] if not nested or action.option_strings else []
        for option in action.option_strings:
            if option.startswith("--"):
                options[option] = choices
        if not action.option_strings:
            values += choices
    yield name, Words(values, options)
    for below, inner in nested.items():
        yield from _tables(f"{name} {below}", inner)


def _bash(table: Mapping[str, Words], shell: str) -> str:
    names = "|".join(shlex.quote(name) for name in table if name)
    values = [
        f"    {shlex.quote(f'{name} {option}')}) {_reply(choices)}; return ;;"
        for name, command in table.items()
        for option, choices in command.options.items()
        if choices
    ]
    options = [f"    {shlex.quote(name)}) {_reply([*w.commands, *w.options])} ;;" for name, w in table.items()]
    head = "#compdef bgdebias\nautoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return head + _BASH.format(shell=shell, commands=names, values="\n".join(values), options="\n".join(options))


def _reply(candidates: list[str]) -> str:
    return f'COMPREPLY=($(compgen -W {shlex.quote(" ".join(candidates))} -- "$word"))'


def _fish(table: Mapping[str, Words]) -> str:
    lines = ["# completion of bgdebias for fish; written by: bgdebias completion fish"]
    for name, command in table.items():
        parts = name.split()
        conditions = [f"__fish_seen_subcommand_from {part}" for part in parts]
        below = [f"not __fish_seen_subcommand_from {' '.join(command.commands)}"] if command.commands else []
        condition = "; and ".join([*conditions, *below]) if parts else "__fish_use_subcommand"
        if command.commands:
            lines.append(
                f"complete -c bgdebias -f -n {shlex.quote(condition)} -a {shlex.quote(' '.join(command.commands))}"
            )
        condition = "; and ".join(conditions) or "__fish_use_subcommand"
        for option, choices in command.options.items():
            value_choices = f" -x -a {shlex.quote(' '.join(choices))}" if choices else ""
            lines.append(
                f"complete -c bgdebias -n {shlex.quote(condition)} -l {option.removeprefix('--')}{value_choices}"
            )
    return "\n".join(lines) + "\n"
