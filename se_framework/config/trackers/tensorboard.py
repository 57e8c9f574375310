"""TensorBoard: figures, pictures and settings as event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from se_framework.config.trackers.base import Status, Tracked, Tracker, required


class TensorBoard(Tracker):
    """Event files that ``tensorboard --logdir DIR`` shows; needs ``pip install 'se-framework[tensorboard]'``.

    A sweep's jobs are seen beside each other, as the runs of the sweep's directory.

    Args:
        directory: where each run has a folder of its own; None is the folder ``tensorboard`` of the run's directory.
    """

    def __init__(self, directory: str | None = None) -> None:
        required("tensorboard", "tensorboard")
        self.directory = directory
        self.writer: Any = None

    def begin(self, run: Tracked) -> None:
        """Open a file beside those that are there, and write the settings."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        own = None if self.directory is None else Path(self.directory).expanduser() / f"{run.name}-{run.id[:8]}"
        self.writer = SummaryWriter(str(own or run.folder("tensorboard", written_into=False)))
        _, settings, _ = hparams(run.simple(), {})  # not its first: that would say which metrics there are, none
        self.writer.file_writer.add_summary(settings)
        self.writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in run.settings.items()))
        self.writer.flush()

    def figures(self, round: int, figures: Mapping[str, float]) -> None:
        """Write a scalar for each."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, round)
        self.writer.flush()

    def picture(self, round: int, name: str, file: Path) -> None:
        """Write an image."""
        import numpy as np
        from PIL import Image

        with Image.open(file) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), round, dataformats="HWC")
        self.writer.flush()

    def end(self, round: int, status: Status) -> None:
        """Write how it ended, as a text and for the table of hyperparameters."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        ended = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
        told = metadata.create_summary_metadata(HParamsPluginData(session_end_info=SessionEndInfo(status=ended)))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=told)
        self.writer.file_writer.add_summary(Summary(value=[value]))
        self.writer.add_text("status", status, round)
        self.writer.close()
