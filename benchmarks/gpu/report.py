"""What was found on a GPU: one JSON per device, and the same as a table."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.report import WORDS, slug
from benchmarks.speed.report import machine as machine_of_rows


def machine(dry: bool) -> dict[str, Any]:
    """Return the device and the versions that figures depend on."""
    found = machine_of_rows(gpu=not dry)
    return found | {"torch": torch.__version__, "cuda": str(torch.version.cuda), "driver": driver()}


def driver() -> str:
    """Return the version of the GPU's driver, as its own tool says it; "unknown" where that is not there."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    return (answer.stdout.splitlines() or ["unknown"])[0].strip()


def write(folder: Path, own: dict[str, Any], name: str, record: dict[str, Any], dry: bool) -> Path:
    """Write a step into the JSON of a device, and the table anew; other steps stay as they are there.

    Args:
        folder: where.
        own: of :func:`machine`.
        name: of the step.
        record: of :func:`~benchmarks.gpu.steps.play`.
        dry: whether it was a dry run, which the title says.

    Returns:
        The JSON file; the table lies beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{slug('dry_run' if dry else 'gpu', own)}.json"
    known: dict[str, Any] = json.loads(file.read_text())["steps"] if file.exists() else {}
    known[name] = record | {"machine": own}
    content = {"device": own["device"], "dry_run": dry, "steps": known}
    file.write_text(json.dumps(content, indent=1) + "\n")
    file.with_suffix(".md").write_text(table(content))
    return file


def table(content: dict[str, Any]) -> str:
    """Return the content of a JSON file as Markdown."""
    title = f"Dry run on {content['device']}: no figure means anything" if content["dry_run"] else content["device"]
    lines = [f"# {title}", "", "Written by `make gpu` (`python -m benchmarks.gpu`).", ""]
    lines += ["| step | what | seconds | | found |", "|---|---|---|---|---|"]
    for name, record in content["steps"].items():
        cells = (f"`{name}`", record["what"], f"{record['seconds']:.0f}", record["state"], "; ".join(_found(record)))
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    lines += ["", *_machines(content["steps"])]
    for name, record in content["steps"].items():
        for test, why in record.get("failed_tests", {}).items():
            lines += ["", f"`{test}` failed:", "", *_block(why)]
        if "output" in record:
            lines += ["", f"The last of what `{name}` printed:", "", *_block(record["output"])]
    return "\n".join(lines) + "\n"


def _found(record: dict[str, Any]) -> list[str]:
    """Return what a step found, in words."""
    told = [f"{count} {outcome}" for outcome, count in record.get("tests", {}).items()]
    for line in record.get("speed", {}).get("verdicts", ()):
        note = f" ({line['note']})" if line["note"] else ""
        state = f", {WORDS[line['met']]}" if line["value"] is not None else ""
        told.append(f"{line['measured']} of {line['against']}, goal {line['goal']}{state}{note}")
    for name, figure in record.get("figures", {}).items():
        seeds = len(figure["gpu_values"])
        judged = {True: "within", False: "**not** within", None: "not compared with"}[figure["agrees"]]
        told.append(
            f"{name} {figure['gpu']:.4g} ({seeds} seed{'s' * (seeds != 1)}), on a CPU {figure['cpu']:.4g}: "
            f"{judged} {figure['allowed']:.2g}"
        )
    return told


def _machines(steps: dict[str, Any]) -> list[str]:
    """Return on what, and with which versions, steps were played."""
    told: dict[str, list[str]] = {}
    for name, record in steps.items():
        own = record["machine"]
        words = f"torch {own['torch']}, CUDA {own['cuda']}, driver {own['driver']}, Python {own['python']}"
        told.setdefault(f"{words}, commit {own['commit'] or 'unknown'}", []).append(name)
    return [f"Played with {words}: {', '.join(f'`{name}`' for name in names)}." for words, names in told.items()]


def _block(text: str) -> list[str]:
    """Return text as it stands, in Markdown."""
    return [f"    {line}" for line in text.splitlines()]
