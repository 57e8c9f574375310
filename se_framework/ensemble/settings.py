"""Which members an ensemble has: the configuration of each is that of its own single run."""
from __future__ import annotations
