"""Ensembles: members of one experiment, of different seeds or weights, that train together in stacked tensors."""

from __future__ import annotations

from se_framework.ensemble.members import Ensemble
from se_framework.ensemble.settings import member_config, members_of

__all__ = ["Ensemble", "member_config", "members_of"]
