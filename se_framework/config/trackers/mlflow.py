"""MLflow: a run of an experiment, in a file of the run's own or on a server."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from se_framework.config.trackers.base import Status, Tracked, Tracker, required
from se_framework.errors import RunDirectoryError

ENDS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
QUIET = {"DISABLE_TELEMETRY": "true", "HTTP_REQUEST_MAX_RETRIES": "1", "HTTP_REQUEST_TIMEOUT": "20"}
"""What a user's own variables may change: nothing is told to the makers, and a server that is gone is soon given up."""
MOST = 100
"""Parameters that a server takes at a time."""


class MLflow(Tracker):
    """A run of MLflow; needs ``pip install 'se-framework[mlflow]'``.

    ``mlflow ui --backend-store-uri sqlite:///RUN_DIR/mlflow/mlflow.db`` shows what lies in a run's directory.

    Args:
        project: the experiment to which the run belongs.
        uri: where runs are kept, e.g. ``http://localhost:5000`` or ``sqlite:////home/me/all.db``; None is an SQLite
            file in the folder ``mlflow`` of the run's directory.
    """

    def __init__(self, project: str = "se-framework", uri: str | None = None) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(f"MLFLOW_{name}", value)
        self.library = required("mlflow", "mlflow")
        self.project, self.uri = project, uri

    def begin(self, run: Tracked) -> None:
        """Open the store, and in it the run of that id, or a new one with the settings as its parameters."""
        from mlflow.entities import Param

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        uri, place = self.uri, None
        if uri is None:
            folder = run.folder("mlflow").absolute()
            uri, place = f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()
        self.client = self.library.MlflowClient(tracking_uri=uri)
        experiment = self.client.get_experiment_by_name(self.project)
        own = self.client.create_experiment(self.project, place) if experiment is None else experiment.experiment_id
        found = self.client.search_runs([own], f"tags.se_id = '{run.id}'")
        tags = {"mlflow.runName": run.name, "se_id": run.id, **({"group": run.group} if run.group else {})}
        kept = found[0] if found else self.client.create_run(own, tags=tags, run_name=run.name)
        if place is not None and kept.info.artifact_uri != f"{place}/{kept.info.run_id}/artifacts":
            raise RunDirectoryError(f"{uri} would put pictures at {kept.info.artifact_uri}: remove that file")
        self.id = kept.info.run_id
        self.client.update_run(self.id, status="RUNNING")
        params = [Param(key, str(value)) for key, value in run.settings.items() if key not in kept.data.params]
        for first in range(0, len(params), MOST):
            self.client.log_batch(self.id, params=params[first : first + MOST])

    def figures(self, round: int, figures: Mapping[str, float]) -> None:
        """Log a metric for each; its steps are rounds."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.id, [Metric(name, value, now, round) for name, value in figures.items()])

    def picture(self, round: int, name: str, file: Path) -> None:
        """Keep the file as an artifact."""
        self.client.log_artifact(self.id, str(file), name)

    def end(self, round: int, status: Status) -> None:
        """Say how it ended."""
        self.client.set_terminated(self.id, ENDS[status])
