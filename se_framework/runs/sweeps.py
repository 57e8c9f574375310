"""What a sweep leaves besides its runs: ``results.csv``, a row per job, complete after every job.

Each job writes ``result.json`` into its own directory, when it begins and when it ends, and makes the table anew from
those of all jobs, so the table holds whatever the launcher (in turn, joblib, submitit) and whatever kills a job or the
process that started it. A row of a finished job is replaced by that of another finished one only.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from se_framework.reading import UnreadableError, count, mapping, number, read_json, take, texts
from se_framework.runs.files import as_json, make_folder, write_atomically
from se_framework.runs.lock import locked
from se_framework.runs.telling import override

RESULT, TABLE, LOCK = "result.json", "results.csv", ".sweep.lock"
DIRECTORY = "SE_SWEEP_DIR"
"""The variable by which the processes of a sweep know its directory."""
DONE = ("finished", "skipped")
OWN = ("job", "status", "score", "run", "error")
"""Columns of the table that say what became of a job."""


def name_now() -> str:
    """Return the directory of a sweep that starts now, below the working directory."""
    return datetime.now().strftime("multirun/%Y-%m-%d/%H-%M-%S-%f")


def record_job(
    directory: Path,
    job: int,
    overrides: Sequence[str],
    status: str,
    score: float | None = None,
    run: Path | None = None,
    error: str | None = None,
) -> None:
    """Record what became of a job and renew the table of its sweep.

    Args:
        directory: of the job, below that of the sweep.
        job: its number.
        overrides: as the sweep made them.
        status: running, finished, skipped, stopped, failed or killed; none but finished and skipped replaces those.
        score: what the sweeper was told.
        run: the run's directory: another one where the job was skipped or went on with an earlier run.
        error: why it failed.
    """
    make_folder(directory)
    if status not in DONE and _record(directory / RESULT).get("status") in DONE:
        return
    found: dict[str, Any] = {
        "job": job,
        "status": status,
        "score": score,
        "run": str(run) if run else "",
        "error": error,
    }
    write_atomically(directory / RESULT, as_json(found | {"overrides": list(overrides)}))
    _renew(directory.parent)


def finish(sweep: Path) -> list[str]:
    """Record the jobs whose process ended without a word, and return what the user should know of them.

    Args:
        sweep: its directory, in which nobody works any more.
    """
    killed = []
    for file in sweep.glob(f"*/{RESULT}"):
        found = _record(file)
        if found.get("status") == "running":
            found |= {"status": "killed", "error": "its process was killed"}
            write_atomically(file, as_json(found))
            killed.append(str(found.get("job")))
    if not killed:
        return []
    _renew(sweep)
    again = f"the same command with {override('hydra.sweep.dir', sweep)} trains what is not finished"
    return [f"job {', '.join(sorted(killed))} was killed (out of memory?), see {sweep / TABLE}: {again}"]


def _renew(sweep: Path) -> None:
    with locked(sweep, wait=True):
        write_atomically(sweep / TABLE, table(sweep.glob(f"*/{RESULT}")).encode())


def _record(file: Path) -> dict[str, Any]:
    """Return what a job has recorded, nothing where there is no record or a damaged one."""
    with suppress(FileNotFoundError, UnreadableError):
        found = read_json(file)
        take(found, "job", kind=count), take(found, "overrides", kind=texts)
        return found
    return {}


def table(results: Iterable[Path]) -> str:
    """Return the table of jobs as CSV: job, status, score, one column per override, every score, run, error.

    An override whose name is that of another column stands under ``typed.NAME``.
    """
    rows = []
    for found in filter(None, map(_record, results)):  # the jobs of damaged records have their rows when they end
        choices = dict(typed.lstrip("+~").partition("=")[::2] for typed in found["overrides"])
        run = found.get("run")
        rows.append((found, choices, _scores(Path(run)) if run and isinstance(run, str) else {}))
    rows.sort(key=lambda row: (row[0]["job"], str(row[0].get("run"))))
    keys = list(dict.fromkeys(key for _, choices, _ in rows for key in choices))
    names = list(dict.fromkeys(name for _, _, scores in rows for name in scores if name not in OWN))
    shown = [f"typed.{key}" if key in (*OWN, *names) else key for key in keys]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["job", "status", "score", *shown, *names, "run", "error"])
    for found, choices, scores in rows:
        own = {name: found.get(name) for name in OWN}
        cells = [own["job"], own["status"], own["score"], *map(choices.get, keys), *map(scores.get, names)]
        writer.writerow(["" if cell is None else cell for cell in [*cells, own["run"], own["error"]]])
    return text.getvalue()


def _scores(run: Path) -> dict[str, float]:
    """Return the scores of a run's summary, none where there is no summary."""
    try:
        scores = take(read_json(run / "summary.json"), "scores", kind=mapping)
        return {str(name): take(entry, "value", kind=number) for name, entry in scores.items()}
    except (FileNotFoundError, UnreadableError):
        return {}
