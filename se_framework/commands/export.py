"""``se-export RUN_DIR out=FILE.safetensors``: the trained weights in a file that any program reads and none runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from se_framework.commands.arguments import parse, run_command
from se_framework.composing import prepare_imports
from se_framework.errors import ConfigError

if TYPE_CHECKING:
    from torch.nn import Module

    from se_framework.assembly import Assembly

USAGE = """se-export RUN_DIR [out=weights.safetensors] [device=auto] [trust=PACKAGE]

Write the run's trained (averaged) weights to a safetensors file: names that begin with 'model.' and, where there is a
metric, 'metric.' (of a summand 'plus.NAME.metric.'). Its metadata are texts: round, config (the run's configuration, in
YAML) and versions (JSON).
  trust=PACKAGE  packages of your own whose classes the run may name"""


def main() -> None:
    """Run the command line ``se-export``."""
    run_command("se-export", USAGE, _export)


def _export(arguments: list[str]) -> None:
    run_dir, values = parse(arguments, {"out": str, "device": str, "trust": str}, USAGE.splitlines()[0])
    prepare_imports(own="trust" in values)
    out = Path(values.get("out", "weights.safetensors")).expanduser()
    if out.suffix != ".safetensors":
        raise ConfigError(f"out={out} must end in .safetensors")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: the directory {out.parent} does not exist")
    from se_framework.notebook import load
    from se_framework.run_directory import write_atomically

    assembly = load(run_dir, values.get("device"), trust=values.get("trust", ()))
    content = exported(assembly)
    write_atomically(out, content)
    print(f"se-export: round {assembly.state.round}, {len(content)} bytes in {out}")


def exported(assembly: Assembly) -> bytes:
    """Return the content of a safetensors file: the trained weights by name, and texts that say what they are.

    Args:
        assembly: trained objects.
    """
    import json

    from omegaconf import OmegaConf
    from safetensors.torch import save

    from se_framework.equation import OWN
    from se_framework.run_directory import versions

    equation = assembly.equation
    modules: dict[str, Module] = {"model": equation.model}
    modules |= {"metric" if name == OWN else f"plus.{name}.metric": m for name, m in equation.metrics().items()}
    # Cloned: safetensors refuses two names of one memory, which tied weights are.
    tensors = {
        f"{prefix}.{name}": tensor.detach().cpu().clone().contiguous()
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    metadata = {
        "round": str(assembly.state.round),
        "config": OmegaConf.to_yaml(assembly.config, resolve=True),
        "versions": json.dumps(versions(assembly.device)),
    }
    return save(tensors, metadata)


if __name__ == "__main__":
    main()
