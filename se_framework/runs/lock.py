"""One process at a time writes into a directory: a lock that ends with the process, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from se_framework.errors import RunDirectoryError

NAME = ".lock"
_held: set[tuple[int, Path]] = set()  # with the process, since a forked child inherits the set, not the lock


@contextmanager
def locked(directory: Path, wait: bool = False, name: str = NAME) -> Iterator[None]:
    """Hold a directory against every other process; within the process that holds it the lock may be taken again.

    A POSIX record lock: the system drops it when the process dies, and children (data workers) do not inherit it. Once
    it is given back, the directory is as it was before.

    Args:
        directory: what is held.
        wait: wait for another process to end with it, instead of refusing.
        name: of the file that is locked.

    Raises:
        RunDirectoryError: another process holds it, or no lock can be placed there.
    """
    path = directory.resolve() / name
    holder = (os.getpid(), path)
    if holder in _held:
        yield
        return
    held, new = _taken(path, directory, wait)
    before = os.pread(held, 4096, 0)
    try:
        _write(held, f"process {os.getpid()} on {socket.gethostname()}".encode())
        _held.add(holder)
        yield
    finally:
        _held.discard(holder)
        with suppress(OSError):  # the file says who holds the lock, which nobody does now
            if new:
                path.unlink()
            else:
                _write(held, before)
        os.close(held)


def holding(directory: Path, name: str = NAME) -> Literal["held", "left", "free"]:
    """Return whether a process holds a directory, or has left its lock there, as one that was killed does.

    Where a lock was left, this holds it, shared, for the moment it takes to look.
    """
    path = directory.resolve() / name
    if (os.getpid(), path) in _held:  # to open and close the file would drop our own lock
        return "held"
    try:
        found = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return "free"
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return "free"
        fcntl.lockf(found, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return "left"
    except OSError:
        return "held"
    finally:
        os.close(found)


def _taken(path: Path, directory: Path, wait: bool) -> tuple[int, bool]:
    """Return the locked file, and whether it was made for this."""
    while True:
        try:
            held, new = _opened(path)
        except FileNotFoundError:
            if path.parent.is_dir():  # who held it has removed it between the two looks
                continue
            raise RunDirectoryError(f"{directory} cannot be written to (there is no such directory)") from None
        except OSError as error:
            raise RunDirectoryError(f"{directory} cannot be written to ({error.strerror or error})") from error
        if not stat.S_ISREG(os.fstat(held).st_mode):
            os.close(held)
            raise RunDirectoryError(f"{path} is no regular file: remove it")
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(held), path.stat()):
                    return held, new
        except OSError as error:
            owner = os.pread(held, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(held)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise RunDirectoryError(f"{directory} cannot be locked ({error.strerror})") from error
            raise RunDirectoryError(
                f"{directory} is in use by {owner}: wait until it ends, or stop it (SIGTERM saves its state)"
            ) from error
        os.close(held)  # it was removed while we waited for it


def _opened(path: Path) -> tuple[int, bool]:
    """Return the file of a lock and whether it is new. Not through a link: a stranger's may lead anywhere."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, flags), False


def _write(held: int, content: bytes) -> None:
    os.ftruncate(held, 0)
    os.pwrite(held, content, 0)
