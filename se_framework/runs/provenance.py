"""What data a run was started with, kept in its directory (``data.json``) and held against the data it resumes with."""

from __future__ import annotations

from se_framework.data import Data
from se_framework.errors import DataError, RunDirectoryError
from se_framework.reading import UnreadableError, take, text
from se_framework.runs.directory import RunDirectory

FILE = "data.json"


def record_fingerprint(run: RunDirectory, data: Data) -> None:
    """Write what the data of a new run is."""
    described = {"name": data.name, "event_shape": list(data.event_shape), "training_rows": data.train_size}
    run.write_json(FILE, described | {"fingerprint": data.fingerprint()})


def check_fingerprint(run: RunDirectory, data: Data) -> None:
    """Refuse to go on with other data; a run that has no record yet is given one.

    Raises:
        DataError: the data is not what the run was started with.
        RunDirectoryError: the record cannot be read.
    """
    try:
        recorded = take(run.read_json(FILE), "fingerprint", kind=text)
    except FileNotFoundError:
        return record_fingerprint(run, data)
    except UnreadableError as error:
        raise RunDirectoryError(f"{run.path / FILE} cannot be read ({error}); remove it to go on unchecked") from error
    found = data.fingerprint()
    if found != recorded:
        raise DataError(
            f"{data.origin} is not the data that {run.path} was started with (fingerprint {recorded} then, {found} "
            "now): put the old data back, permit it by resume_allow=[data], or start a new run"
        )
