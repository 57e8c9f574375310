"""Trackers of experiments: what follows a run and keeps it elsewhere. One file each; ``tracker=NAME`` chooses one."""

from se_framework.config.trackers.base import Tracked, Tracker
from se_framework.config.trackers.mlflow import MLflow
from se_framework.config.trackers.tensorboard import TensorBoard
from se_framework.config.trackers.wandb import WandB

__all__ = ["MLflow", "TensorBoard", "Tracked", "Tracker", "WandB"]
