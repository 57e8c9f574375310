"""What a sweep leaves besides its runs: ``results.csv``, a row per job, complete after every job.

Each job writes ``result.json`` into its own directory and makes the table anew from those of all jobs, so the table
holds whatever the launcher (in turn, joblib, submitit) and whatever kills the process that started the jobs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from se_framework.reading import UnreadableError, count, mapping, number, read_json, take, texts
from se_framework.runs.files import as_json, write_atomically
from se_framework.runs.lock import locked

RESULT, TABLE = "result.json", "results.csv"


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
        status: finished, skipped, stopped or failed.
        score: what the sweeper was told.
        run: the run's directory: another one where the job was skipped or went on with an earlier run.
        error: why it failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "job": job,
        "status": status,
        "score": score,
        "run": str(run) if run else "",
        "error": error,
    }
    write_atomically(directory / RESULT, as_json(found | {"overrides": list(overrides)}))
    sweep = directory.parent
    with locked(sweep, wait=True):
        write_atomically(sweep / TABLE, table(sweep.glob(f"*/{RESULT}")).encode())


def table(results: Iterable[Path]) -> str:
    """Return the table of jobs as CSV: job, status, score, one column per override, every score, run, error."""
    rows = []
    for file in results:
        try:
            found = read_json(file)
            job, overrides, run = take(found, "job", kind=count), take(found, "overrides", kind=texts), found.get("run")
        except (FileNotFoundError, UnreadableError):
            continue  # somebody else's, or damaged: the other jobs have their rows all the same
        choices = dict(word.lstrip("+~").partition("=")[::2] for word in overrides)
        rows.append((job, found, choices, _scores(Path(run)) if run and isinstance(run, str) else {}))
    rows.sort(key=lambda row: row[0])
    keys = list(dict.fromkeys(key for _, _, choices, _ in rows for key in choices))
    names = list(dict.fromkeys(name for _, _, _, scores in rows for name in scores))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["job", "status", "score", *keys, *names, "run", "error"])
    for job, found, choices, scores in rows:
        cells = [job, found.get("status"), found.get("score"), *map(choices.get, keys), *map(scores.get, names)]
        writer.writerow(["" if cell is None else cell for cell in [*cells, found.get("run"), found.get("error")]])
    return text.getvalue()


def _scores(run: Path) -> dict[str, float]:
    """Return the scores of a run's summary, none where there is no summary."""
    try:
        scores = take(read_json(run / "summary.json"), "scores", kind=mapping)
        return {str(name): take(entry, "value", kind=number) for name, entry in scores.items()}
    except (FileNotFoundError, UnreadableError):
        return {}
