"""Where a study lives: a journal file that survives kills and torn lines, or any of Optuna's databases."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from hyperlax.errors import RunFailed, UserError
from hyperlax.results.storage import append, naming

log = logging.getLogger(__name__)

_BEGINNING = b'{"op_code"'  # of a journal


class _Lock:
    """A lock that ends with its process, however that ends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def acquire(self) -> bool:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        os.close(self._file)


class Journal(JournalFileBackend):
    """A journal that waits for the disk at checkpoints alone: what is written survives the process, as our tables do.

    Optuna's waits at every event, which makes asking for a trial of 22 hyperparameters take ten times as long.
    """

    def __init__(self, path: Path, lock: _Lock) -> None:
        super().__init__(str(path), lock_obj=lock)  # type: ignore[arg-type]
        self._path, self._own_lock = path, lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends events, one a line."""
        lines = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in logs).encode()
        self._own_lock.acquire()
        try:
            _cut_torn_line(self._path)
            append(self._path, lines)
        finally:
            self._own_lock.release()

    def sync(self) -> None:
        """Waits until all of it is on the disk."""
        file = os.open(self._path, os.O_RDONLY)
        try:
            with naming(self._path):
                os.fsync(file)
        finally:
            os.close(file)


def open_storage(where: str | os.PathLike[str], own: bool = False) -> BaseStorage:
    """Returns a storage: a path is a journal file, a URL (``postgresql://…``, ``sqlite:///…``, …) a database.

    Args:
        where: it is.
        own: whether it is the run's own file, which may be mended whatever is left of it.

    Raises:
        UserError: it cannot be reached, or is something else.
    """
    if not isinstance(where, str) or "://" not in where:
        return _journal(Path(where), own)
    try:
        return optuna.storages.get_storage(optuna.storages.RDBStorage(where, engine_kwargs={"pool_pre_ping": True}))
    except ImportError as error:
        driver = getattr(error.__cause__, "name", None) or error.name
        raise UserError(f"storage '{without_password(where)}' needs the Python package {driver}") from None
    except Exception as error:  # whatever the driver of that database raises
        raise UserError(f"storage '{without_password(where)}' cannot be reached: {reason_of(error)}") from None


def _journal(path: Path, own: bool) -> BaseStorage:
    lock = _Lock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire()
        try:
            content = path.read_bytes() if path.exists() else b""
            if not own:
                _refuse_foreign(path, content)
            _mend(path, content)
        finally:
            lock.release()
        return JournalStorage(Journal(path, lock))
    except OSError as error:
        raise UserError(f"storage '{path}' cannot be written: {error.strerror}") from None


def _cut_torn_line(path: Path) -> None:
    """Cuts off what another process, killed or without room on the disk, has left of a line."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = end
        while start > 0:
            start = max(0, start - 4096)
            file.seek(start)
            newline = file.read(min(4096, end - start)).rfind(b"\n")
            if newline >= 0:
                start += newline + 1
                break
        if start < end:
            file.truncate(start)


def _refuse_foreign(path: Path, content: bytes) -> None:
    """Raises UserError if a file that there is has never been a journal."""
    events = (_is_event(line) for line in content.splitlines(keepends=True))
    if content and not content.startswith(_BEGINNING[: len(content)]) and not any(events):
        raise UserError(
            f"storage '{path}' is no journal of a study, and stays as it is; a database has a URL, as in sqlite:///{path}"
        )


def _mend(path: Path, content: bytes) -> None:
    """Cuts off what a kill has left of a line, and what follows a damaged one, which is kept beside."""
    good = _good(content)
    lost = content[good:]
    if not lost:
        return
    if b"\n" in lost:
        aside = path.with_name(f"{path.name}.damaged")
        aside.write_bytes(content)
        log.warning("%s is damaged after %d bytes: it is cut off there, all of it is kept in %s", path, good, aside)
    os.truncate(path, good)


def _good(content: bytes) -> int:
    """Returns how many bytes of a journal come before the first line that is torn or damaged."""
    good = 0
    for line in content.splitlines(keepends=True):
        if not _is_event(line):
            break
        good += len(line)
    return good


def _is_event(line: bytes) -> bool:
    try:
        return "op_code" in json.loads(line if line.endswith(b"\n") else b"")
    except (ValueError, TypeError):
        return False


def warn_of_damage(path: Path) -> None:
    """Names a journal that is not there or cannot be read to its end."""
    content = path.read_bytes() if path.exists() else b""
    if content == b"" or _good(content) < len(content):
        log.warning("%s is damaged: the search may not be made longer; all its results are there", path)


def without_password(text: str) -> str:
    """Returns a text without the passwords of the URLs in it, which are not for others' eyes."""
    return re.sub(r"(://[^\s:/@]+):[^\s/@]+@", r"\1:***@", text)


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Raises RunFailed, in one line, where a database can no longer be reached."""
    try:
        yield
    except (StorageInternalError, RunFailed) as error:
        cause = error if isinstance(error, StorageInternalError) else error.__cause__
        if not isinstance(cause, StorageInternalError):
            raise
        reason = reason_of(cause.__cause__ or cause)
        raise RunFailed(f"the study's storage cannot be reached any more: {reason}; --resume True goes on") from error


def reason_of(error: BaseException) -> str:
    """Returns what a driver says, in one line and without passwords."""
    return without_password(" ".join(str(error).split()).partition("(Background on")[0])[:300]
