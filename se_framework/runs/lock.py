"""One process at a time writes into a directory: a lock that ends with the process, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from se_framework.errors import RunDirectoryError

NAME = ".lock"
_held: set[tuple[int, Path]] = set()  # with the process, since a forked child inherits the set, not the lock


@contextmanager
def locked(directory: Path, wait: bool = False) -> Iterator[None]:
    """Hold a directory against every other process; within the process that holds it the lock may be taken again.

    A POSIX record lock: the system drops it when the process dies, and children (data workers) do not inherit it.

    Args:
        directory: what is held.
        wait: wait for another process to end with it, instead of refusing.

    Raises:
        RunDirectoryError: another process holds it, or no lock can be placed there.
    """
    place = directory.resolve()
    holder = (os.getpid(), place)
    if holder in _held:
        yield
        return
    try:
        # Not through a link: in a stranger's directory it may lead anywhere.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(place / NAME, flags, 0o666)
    except OSError as error:
        raise RunDirectoryError(f"{directory} cannot be written to ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunDirectoryError(f"{place / NAME} is no regular file: remove it")
    with open(descriptor, "a+", errors="replace") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise RunDirectoryError(f"{directory} cannot be locked ({error.strerror})") from error
            file.seek(0)
            owner = file.read(200).strip() or "another process"
            raise RunDirectoryError(
                f"{directory} is in use by {owner}: wait until it ends, or stop it (SIGTERM saves its state)"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _held.add(holder)
        try:
            yield
        finally:
            _held.discard(holder)
