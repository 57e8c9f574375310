"""Trackers of experiments: what follows a run and keeps it elsewhere. One file each; ``tracker=NAME`` chooses one."""

from se_framework.trackers.base import Tracked, Tracker
from se_framework.trackers.mlflow import MLflow
from se_framework.trackers.tensorboard import TensorBoard
from se_framework.trackers.wandb import WandB

__all__ = ["MLflow", "TensorBoard", "Tracked", "Tracker", "WandB"]
