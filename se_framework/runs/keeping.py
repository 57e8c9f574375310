"""Which checkpoints are kept: only those that can be read count, so that dropping the others never loses work."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from se_framework.reading import UnreadableError
from se_framework.runs import checkpoint


class Sound:
    """Looks whether checkpoints can be read, each file once: it is read again only if it has changed.

    What this process has written itself it knows (:meth:`note`).
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[tuple[int, ...], bool]] = {}

    def note(self, path: Path) -> None:
        """Take down a checkpoint that was written just now."""
        self._seen[path] = _stamp(path), True

    def __call__(self, path: Path) -> bool | None:
        """Return whether a checkpoint is whole; None where it is no file, or may not be read, which may pass."""
        try:
            stamp = _stamp(path)
            if self._seen.get(path, (None, False))[0] != stamp:
                self._seen[path] = stamp, _whole(path)
        except (OSError, UnreadableError):
            return None
        return self._seen[path][1]


def prune(newest: Iterable[Path], best: Iterable[Path], last: int, of_best: int, sound: Sound) -> None:
    """Drop the checkpoints that need not be kept, and those that are damaged.

    Args:
        newest: every checkpoint, newest first.
        best: those of evaluated rounds, best first.
        last: how many of the newest are kept.
        of_best: how many of the best are kept besides.
        sound: which of them can be read. One of which the system does not say is neither counted nor dropped.
    """
    found = list(newest)
    kept = {*islice(filter(sound, found), last), *islice(filter(sound, best), of_best)}
    for path in found:
        if path not in kept and sound(path) is not None:
            path.unlink()


def _whole(path: Path) -> bool:
    try:
        checkpoint.read(path)
    except checkpoint.DamagedError:
        return False
    return True


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
