"""Worker processes that read rows ahead, by torch's DataLoader.

How they end is what needs care:

* Signals. A terminal sends Ctrl-C, and a cluster SIGTERM, to every process of the group. The main process finishes its
  round and needs its workers for that: both signals are blocked while workers start, so they inherit the block and
  never see either.
* The end. Workers are asked to leave, and killed after :data:`GRACE` seconds where a slow row keeps them.
* A killed worker. torch's handler of SIGCHLD would raise in the middle of whatever the main process does, and tear a
  round; it is taken off again (torch sets it once per process, so a loader of the user's own, made later, goes
  without), and the loader notices within 5 seconds, when it waits for that worker's batch.
* A killed main process. Workers look every 5 seconds whether their parent lives.

Workers are forked on Linux: they start in milliseconds, share the Dataset's memory, and need neither a Dataset that
can be pickled nor a guarded main module. A worker touches no CUDA and one thread, so what a fork does not carry over
(threads, the CUDA context) is not missed. Elsewhere they are spawned, as fork is unsafe under macOS's own libraries.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from se_framework.data.sources import Request, Source, Stored
from se_framework.errors import DataError

START = "fork" if sys.platform == "linux" else "spawn"
GRACE = 2.0
"""Seconds that workers are given to finish a row at the end."""


@contextmanager
def ahead(source: Source, requests: Iterable[Request], workers: int, pin: bool = False) -> Iterator[Iterator[Stored]]:
    """Yield an iterator over the rows of the requests, in order, which workers read ahead of their use.

    Args:
        source: the rows.
        requests: may be endless; two per worker are under way.
        workers: number of processes, at least 1.
        pin: return tensors in page-locked memory, for copies to a GPU that nobody waits for.

    Raises:
        DataError: a row could not be read, or a worker ended.
    """
    loader = DataLoader(
        _Requested(source), sampler=requests, batch_size=None, collate_fn=_as_it_is, num_workers=workers,
        multiprocessing_context=START, worker_init_fn=partial(_begin, torch.get_default_dtype()), pin_memory=pin,
        generator=torch.Generator(),  # torch's global generator is left alone
    )  # fmt: skip
    before, handler = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
    with _signals_blocked():
        loaded: Any = iter(loader)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGCHLD, handler)
    started = [p for p in multiprocessing.active_children() if p not in before]
    # A worker that hangs in a row is not waited for.
    killer = threading.Timer(GRACE, _kill, [started])
    try:
        yield _received(loaded, source.name, started)
    finally:
        killer.daemon = True
        killer.start()
        # By name: an exception under way keeps the loader alive, so that deleting it here would not do.
        loaded._shutdown_workers()
        killer.cancel()


class _Requested(Dataset):
    """What torch's loader asks by index: the index is a whole request, the item its rows or why there are none."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, request: Request) -> Stored | str:
        try:
            return self.source.read(request)
        except DataError as error:  # torch would send it back with the worker's traceback in its message
            return str(error)


def _received(loaded: Iterator[Stored | str | list], name: str, workers: Iterable[BaseProcess]) -> Iterator[Stored]:
    while True:
        try:
            found = next(loaded)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            # A worker may end while it hands a batch over: the connection breaks a moment before the process is gone.
            if not wait([worker.sentinel for worker in workers], timeout=1):
                raise
            raise DataError(
                f"a process that reads {name} ended ({' '.join(str(error).split())}): the memory, or its shared "
                "part /dev/shm, may be too small; lower workers or loop.batch_size, and resume"
            ) from error
        if isinstance(found, str):
            raise DataError(found)
        x, y = found  # pinning makes a list of the pair
        yield x, y


def _kill(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _as_it_is(found: Any) -> Any:
    return found


def _begin(dtype: torch.dtype, worker: int) -> None:
    # A spawned worker does not inherit what the main process has set.
    torch.set_default_dtype(dtype)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back in this thread; processes and threads started meanwhile keep the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
