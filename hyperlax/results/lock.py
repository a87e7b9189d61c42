"""One process writes a run directory at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

from hyperlax.errors import UserError

log = logging.getLogger(__name__)
_NAME = ".lock"


class BusyDirectory(UserError):
    """Another process writes to a directory."""


def is_locked(directory: Path) -> bool:
    """Returns whether another process writes to a directory."""
    try:
        DirectoryLock(directory).release()
    except BusyDirectory:
        return True
    except UserError:  # nobody can
        return False
    return False


class DirectoryLock:
    """A context; the lock is held from its making to its end, or until the process ends, however that happens.

    Args:
        directory: of a run.

    Attributes:
        directory: the same.
        held: whether it is; a file system without locks lets everybody write.

    Raises:
        BusyDirectory: another process holds it; the message says which.
        UserError: the directory cannot be written to.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.held = directory, True
        try:
            self._file = os.open(directory / _NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"'{directory}' cannot be written to: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 200).decode(errors="replace").strip() or "another process"
            os.close(self._file)
            raise BusyDirectory(f"'{directory}' is being written by {holder}") from None
        except OSError as error:  # a file system without locks
            self.held = False
            log.warning("%s cannot be locked, see to it that no other process writes there: %s", directory, error)
        os.ftruncate(self._file, 0)
        with suppress(OSError):  # a full disk: who holds the lock is told for convenience
            os.write(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets others have it."""
        os.close(self._file)
