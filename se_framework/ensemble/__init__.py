"""Ensembles: members of one experiment, of different seeds or weights, that train together in stacked tensors."""

from __future__ import annotations

from se_framework.ensemble.playing import averaged  # the import teaches the loop to play an ensemble
from se_framework.ensemble.settings import member_config, members_of
from se_framework.ensemble.stack import Ensemble

__all__ = ["Ensemble", "averaged", "member_config", "members_of"]
