"""Ctrl-C, SIGTERM and a terminal that hangs up: they finish the round, or are told in a sentence; nothing is torn."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

from se_framework.runs.telling import say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal came where there is no round to be finished.

    Attributes:
        number: of the signal.
        said: whether the user has been told.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.said = number, False


class Interrupts:
    """While active, SIGINT, SIGTERM and SIGHUP set :attr:`requested`; a second signal acts as it did before.

    A signal that the process was started to ignore (``nohup``) stays ignored. Handlers can be set in the main thread
    only; elsewhere signals keep their meaning.

    Attributes:
        requested: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
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


@contextmanager
def signals_told(command: str) -> Iterator[None]:
    """Let a signal end a command with one sentence, and the code 128 plus its number.

    Raises:
        SystemExit: a signal came.
    """
    _raise_on_signals()
    try:
        yield
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        if not stopped.said:
            say(str(stopped), command)
        raise SystemExit(128 + stopped.number) from None


def _raise_on_signals() -> None:
    """Have signals raise :class:`Stopped` where they would kill without a word; not in a launcher's processes."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or multiprocessing.current_process().name != "MainProcess":
        return
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
