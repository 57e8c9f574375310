"""Signals finish the round instead of tearing it; elsewhere they end a command by one sentence."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from se_framework.training.console import put

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what ``kill`` and batch systems send, and what a terminal sends that goes away."""


@contextmanager
def signals_told(name: str) -> Iterator[None]:
    """Let a signal end a command by one sentence and the code 128 plus its number; what is written stays whole."""

    def stop(number: int, frame: FrameType | None) -> None:
        put(f"{name}: stopped by {signal.Signals(number).name}; what was saved is whole")
        raise SystemExit(128 + number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.signal(s, stop) for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interrupts:
    """While active, :data:`SIGNALS` set :attr:`requested`; a second signal acts as usual.

    Handlers can be set in the main thread only; elsewhere signals keep their meaning.

    Attributes:
        requested: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: the terminal may go
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = number
        self._restore()
