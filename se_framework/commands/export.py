"""``se-export RUN_DIR out=FILE.safetensors``: the trained weights, for any program that reads safetensors."""

from __future__ import annotations

from pathlib import Path

from se_framework.commands.arguments import OF_A_RUN, OF_A_RUN_HELP, load_run, parse, run_command
from se_framework.errors import ConfigError

USAGE = (
    """se-export RUN_DIR [out=weights.safetensors]

Write the weights of the run's trained (averaged) modules: model.NAME and, where there is a metric, metric.NAME.
The header's metadata holds the configuration (YAML), the round, and the versions (JSON).
"""
    + OF_A_RUN_HELP
)


def main() -> None:
    """Run the command line ``se-export``."""
    run_command("se-export", USAGE, _export)


def _export(arguments: list[str]) -> None:
    run_dir, values = parse(arguments, {"out": str} | OF_A_RUN, USAGE.splitlines()[0])
    out = Path(values.get("out", "weights.safetensors")).expanduser()
    if out.suffix != ".safetensors":
        raise ConfigError(f"out={out} must end in .safetensors")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: the directory {out.parent} does not exist")
    assembly = load_run(run_dir, values)
    count = assembly.save(out)
    print(f"se-export: {count} tensors of round {assembly.state.round} in {out}")


if __name__ == "__main__":
    main()
