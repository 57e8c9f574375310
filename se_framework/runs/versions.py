"""What besides its configuration a run depends on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "se-framework", "torch", "geomloss", "einops", "hydra-core", "numpy", "scipy", "scikit-learn", "safetensors",
)  # fmt: skip


def versions(device: torch.device) -> dict[str, Any]:
    """Return what is needed to reproduce a run besides its configuration."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        found["commit"] = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        found["uncommitted_changes"] = bool(changes.strip())
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = None
    found["device"] = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type
    )
    found["threads"] = torch.get_num_threads()
    return found
