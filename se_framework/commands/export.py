"""``se-export RUN_DIR out=FILE.safetensors``: the trained weights, for any program that reads safetensors."""

from __future__ import annotations

from se_framework.commands.arguments import Parser, file_to_write, load_run, run_command

DOES = """Write the weights of the run's trained (averaged) modules: model.NAME and, where there is one, metric.NAME.
The header's metadata holds the configuration (YAML), the round, and the versions (JSON)."""


def main() -> None:
    """Run the command line ``se-export``."""
    run_command("se-export", _export)


def _export(words: list[str]) -> None:
    parser = Parser("se-export", DOES)
    parser.add("out", "weights.safetensors", "the file", file_to_write(".safetensors"))
    arguments = parser.read(words)
    assembly = load_run(arguments)
    count = assembly.save(arguments.out)
    print(f"se-export: {count} tensors of round {assembly.state.round} in {arguments.out}")


if __name__ == "__main__":
    main()
