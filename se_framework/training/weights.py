"""Trained weights in a file for any program that reads safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save

from se_framework.equation.equation import StandardEquation
from se_framework.equation.terms import OWN
from se_framework.runs.files import write_atomically
from se_framework.runs.versions import versions


def save_weights(path: Path, equation: StandardEquation, config: str, rounds: int, device: torch.device) -> int:
    """Write the weights of the model and the metrics and return the number of tensors.

    Args:
        path: of the file.
        equation: with its trained (averaged) parts. The names are ``model.NAME`` and, where there is a metric,
            ``metric.NAME``, that of a summand ``plus.SUMMAND.metric.NAME``.
        config: the configuration as YAML, for the header's metadata.
        rounds: that were played.
        device: on which they were trained.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    modules = {"model": equation.model} | {
        "metric" if name == OWN else f"plus.{name}.metric": metric for name, metric in equation.metrics().items()
    }
    tensors = {
        f"{part}.{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    metadata = {"config": config, "round": str(rounds), "versions": json.dumps(versions(device))}
    write_atomically(path, save(tensors, metadata))
    return len(tensors)
