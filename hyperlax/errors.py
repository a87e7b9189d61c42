"""The one exception that reaches a user as a single line and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: what was received, what is accepted. Never a bug of ours.

    The command line prints the message as one line and exits with code 2.
    """


class CannotShare(Exception):
    """Two configurations cannot share a program; each needs its own. Never reaches a user."""


class RunFailed(RuntimeError):
    """Part of a run failed, through no fault of the input; what could be kept is kept.

    The command line prints the message as one line and exits with code 1.
    """


class CannotWrite(RunFailed):
    """A disk is full or gone, or a directory read-only: nothing that would follow could be kept."""


def in_words(error: OSError) -> str:
    """Returns an error of the operating system as part of a line, with the file that it is about."""
    return str(error) if error.filename is None else f"'{error.filename}': {error.strerror}"


def unknown(kind: str, value: object, accepted: Iterable[str], hint: str = "") -> UserError:
    """Returns the error for a name that is not known, with the nearest accepted names.

    Args:
        kind: what was being named, for example ``"environment"``.
        value: the name received.
        accepted: every accepted name.
        hint: appended to the message, for example where to list the names.
    """
    names = sorted(accepted)
    lowered = {name.lower(): name for name in names}
    near = [lowered[m] for m in difflib.get_close_matches(str(value).lower(), lowered, n=3, cutoff=0.5)]
    if near:
        tail = f"did you mean {' or '.join(near)}?"
    elif len(names) <= 12:
        tail = f"accepted: {', '.join(names)}"
    else:
        tail = f"there are {len(names)} of them"
    return UserError(f"unknown {kind} '{value}': {tail}{' ' + hint if hint else ''}")
