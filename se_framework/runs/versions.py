"""What besides its configuration a run depends on."""

from __future__ import annotations

import os
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
    found |= commit_of(Path(__file__))
    found["device"] = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type
    )
    found["threads"] = torch.get_num_threads()
    return found


def commit_of(file: Path) -> dict[str, Any]:
    """Return the commit of the repository that keeps a file, and whether anything in it is changed.

    None where no repository does: one that merely surrounds the environment says nothing of the code.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        return {"commit": git("rev-parse", "HEAD"), "uncommitted_changes": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None}
