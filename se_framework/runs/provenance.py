"""What data a run was started with, kept in its directory (``data.json``) and held against the data it resumes with."""

from __future__ import annotations

from typing import Any

from se_framework.data import Data
from se_framework.errors import DataError, RunDirectoryError
from se_framework.reading import UnreadableError, take, text
from se_framework.runs.directory import RunDirectory

FILE = "data.json"


def record_fingerprint(run: RunDirectory, data: Data) -> None:
    """Write what the data of a new run is."""
    run.write_json(FILE, _described(data, data.fingerprint()))


def check_fingerprint(run: RunDirectory, data: Data) -> None:
    """Refuse to go on with other data; a run that has no record yet is given one.

    Raises:
        DataError: the data is not what the run was started with.
        RunDirectoryError: the record cannot be read.
    """
    record = due_record(run, data)
    if record is not None:
        run.write_json(FILE, record)


def due_record(run: RunDirectory, data: Data, other: bool = False) -> dict[str, Any] | None:
    """Return the record that a run needs to go on with data, None if it has one that fits. Nothing is written.

    Args:
        run: its directory.
        data: with which it shall go on.
        other: whether it may be another than before.

    Raises:
        DataError: the data is not what the run was started with.
        RunDirectoryError: the record cannot be read.
    """
    found = data.fingerprint()
    if other:
        return _described(data, found)
    try:
        recorded = take(run.read_json(FILE), "fingerprint", kind=text)
    except FileNotFoundError:
        return _described(data, found)
    except UnreadableError as error:
        raise RunDirectoryError(f"{run.path / FILE} cannot be read ({error}); remove it to go on unchecked") from error
    if found != recorded:
        raise DataError(
            f"{data.origin} is not the data that {run.path} was started with (fingerprint {recorded} then, {found} "
            "now): put the old data back, permit it by resume_allow=[data], or start a new run"
        )
    return None


def _described(data: Data, fingerprint: str) -> dict[str, Any]:
    described = {"name": data.name, "event_shape": list(data.event_shape), "training_rows": data.train_size}
    return described | {"fingerprint": fingerprint}
