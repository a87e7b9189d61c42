"""What researchers type, turned into what Typer parses.

Two habits are accepted that Typer does not know: several values after one option (``--algos a b`` for
``--algos a --algos b``) and a value after a boolean option (``--sequential True``). Both follow from a
command's declared options, so a new command needs nothing here. Names that are not known are refused
on the way, with the nearest ones that are.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hyperlax.errors import UserError

HELP = "--help"
TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})


def normalise(program: Any, argv: Sequence[str]) -> list[str]:
    """Returns the arguments as Typer parses them.

    Args:
        program: Typer's command group.
        argv: what was typed after the program's name.

    Raises:
        UserError: an unknown command or option, an option without its value, a word that belongs to none.
    """
    if not argv:
        return [HELP]
    name, rest = argv[0], list(argv[1:])
    if name.startswith("-"):
        return _Words(program, argv[:1]).rewrite() + rest
    if name not in program.commands:
        raise UserError(f"no such command '{name}': {_nearest(name, program.commands)}")
    if HELP in rest:
        return [name, HELP]
    return [name, *_Words(program.commands[name], rest).rewrite()]


def _nearest(name: str, accepted: Iterable[str]) -> str:
    """Returns a hint at the accepted names that look like this one, or else at all of them."""
    names = sorted(accepted)
    near = [a for a in names if a.startswith(name)] or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"accepted: {', '.join(names)}"


def is_option(word: str) -> bool:
    """Tells an option from a value; a negative number is a value."""
    return len(word) > 1 and word[0] == "-" and re.match(r"-[\d.]|-(inf|nan)$", word) is None


class _Words:
    """The words after a command, read from left to right."""

    def __init__(self, command: Any, words: Sequence[str]) -> None:
        self.command = command
        self.words = list(words)
        self.options = {
            spelling: option
            for option in command.params
            if option.param_type_name == "option"
            for spelling in (*option.opts, *option.secondary_opts)
        }
        self.positionals = sum(p.param_type_name == "argument" for p in command.params)

    def rewrite(self) -> list[str]:
        """Returns all words in Typer's form."""
        out: list[str] = []
        positionals = 0
        while self.words:
            word = self.words.pop(0)
            if is_option(word):
                out += self._option(word)
                continue
            positionals += 1
            if positionals > self.positionals:
                raise UserError(f"unexpected argument '{word}'{f' after {out[-1]}' if out else ''}")
            out.append(word)
        return out

    def _option(self, word: str) -> list[str]:
        """Returns one option with the values that belong to it."""
        spelling, equals, attached = word.partition("=")
        if spelling == HELP:
            return [HELP]
        option = self.options.get(spelling)
        if option is None:
            raise UserError(f"no such option {spelling}: {_nearest(spelling, [*self.options, HELP])}")
        if option.is_flag:
            return self._boolean(option, spelling, attached if equals else None)
        values = [attached] if equals else self._values(spelling, many=option.multiple)
        return [part for value in values for part in (spelling, value)]

    def _values(self, spelling: str, many: bool) -> list[str]:
        """Takes the next word, or all words up to the next option."""
        end = 0
        while end < len(self.words) and not is_option(self.words[end]) and (many or end < 1):
            end += 1
        if end == 0:
            got = f", got {self.words[0]}" if self.words else ""
            raise UserError(f"option {spelling} needs a value{got}")
        values, self.words = self.words[:end], self.words[end:]
        return values

    def _boolean(self, option: Any, spelling: str, attached: str | None) -> list[str]:
        """Returns the spelling of a flag that means what its explicit value says."""
        value = attached
        if value is None and self.words and not is_option(self.words[0]):
            known = self.words[0].lower() in TRUE | FALSE
            if known or not self.positionals:  # where a command takes none, a stray word is meant as the value
                value = self.words.pop(0)
        if value is None:
            return [spelling]
        if value.lower() not in TRUE | FALSE:
            raise UserError(f"option {spelling}: '{value}' is not a boolean, accepted: true, false")
        wanted = (value.lower() in TRUE) == (spelling in option.opts)
        if wanted:
            return [option.opts[0]]
        return [option.secondary_opts[0]] if option.secondary_opts else []


def usage_message(error: Exception, args: Sequence[str]) -> str:
    """Returns one line for an error of Typer's parser.

    Args:
        error: a usage error, which knows the option it is about.
        args: what Typer parsed.
    """
    spellings = getattr(getattr(error, "param", None), "opts", [])
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "MissingParameter" and spellings:
        see = f" (see `{context.command_path} {HELP}`)" if context else ""
        return f"missing {' or '.join(spellings)}{see}"
    message = str(getattr(error, "message", error)).strip().rstrip(".")
    given = [value for spelling, value in itertools.pairwise(args) if spelling in spellings]
    if given:
        # Typer's versions word it differently, and most leave out what was received.
        message = re.sub(r"^Input should be|^'.*' is not", "must be", message).partition(", unable to")[0]
        message = message.removesuffix(" range")
        return f"{spellings[0]} {given[-1]}: {message}"
    return message[:1].lower() + message[1:]
