"""The command line of ``se-train``: its flags, its help, and what is refused before a directory is made.

Imports neither torch nor models.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra import __version__ as hydra_version
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from se_framework import __version__
from se_framework.config.files import config_dir, groups
from se_framework.errors import ConfigError

EQUATION = "min_theta max_phi min_q  -alpha H(q) + beta D(q, p_theta) - E_q[f_phi] + E_pd[f_phi]"
EXAMPLES = """
Examples
  se-train                                      the default: an adversarial model of handwritten digits
  se-train experiment=wgan_gp data=moons seed=1 loop.rounds=2000
  se-train experiment=fgan divergence=kl dry_run=true
  se-train -m experiment=fgan divergence=kl,pearson seed=0,1,2
  se-train experiment=wgan_gp resume=auto       go on with the newest run of this configuration, or start it
  se-train resume=RUN_DIR                       then: se-sample RUN_DIR out=x.png   se-eval RUN_DIR
  se-train experiment=wgan_gp --cfg job         every value of a configuration, those of its parts included
  A path with =, (, ~ or a comma needs quotes:  'data.path="~/my (file).npy"'

Flags
  --multirun, -m         a sweep over KEY=VALUE,VALUE...
  --config-dir, -cd DIR  a folder of configurations of your own: GROUP/CHOICE.yaml
  --cfg, -c job          print the configuration (hydra, all: with Hydra's own part)
  --hydra-help           Hydra's other flags"""
SWITCHES = ("--help -h", "--hydra-help", "--resolve", "--run -r", "--multirun -m", "--shell-completion -sc")
VALUES = ("--package -p", "--config-path -cp", "--config-name -cn", "--config-dir -cd", "--experimental-rerun")
PRINTED = ("job", "hydra", "all")
TOLD = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


class _Parser(argparse.ArgumentParser):
    """Takes the flags that ``hydra.main`` takes, which reads the same command line after us for sweeps."""

    def __init__(self) -> None:
        super().__init__("se-train", add_help=False)
        self.add_argument("overrides", nargs="*")
        for names in SWITCHES:
            self.add_argument(*names.split(), action="store_true")
        for names in VALUES:
            self.add_argument(*names.split())
        self.add_argument("--cfg", "-c", choices=PRINTED)
        self.add_argument("--info", "-i", nargs="?", const="all", choices=TOLD)
        versions = f"se-framework {__version__} (Hydra {hydra_version})"
        self.add_argument("--version", action="version", version=versions)

    def error(self, message: str) -> NoReturn:
        """Refuse in one sentence, in the place of a usage text."""
        unknown = message.partition("arguments: ")[2].split()
        interrupted = any("=" in word and not word.startswith("-") for word in unknown)
        mend = "flags go before the first KEY=VALUE, or after the last" if interrupted else "se-train --help lists them"
        raise ConfigError(f"{message}: {mend}")


def parse(command_line: list[str]) -> argparse.Namespace:
    """Read the flags as Hydra does, and refuse those that would set aside our configuration.

    Raises:
        ConfigError: a flag is unknown, lacks its value, or may not be used here.
    """
    arguments = _Parser().parse_args(command_line)
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(arguments, flag) is not None:
            raise ConfigError(
                f"--{flag.replace('_', '-')} sets se-train's own configuration aside: put files of yours into a "
                "folder and add --config-dir FOLDER; resume=RUN_DIR goes on with a run"
            )
    if arguments.config_dir == "":
        raise ConfigError("--config-dir is empty: name a folder")
    actions = {"--run": arguments.run, "--multirun": arguments.multirun, "--cfg": arguments.cfg,
               "--info": arguments.info, "--shell-completion": arguments.shell_completion}  # fmt: skip
    asked = [name for name, value in actions.items() if value]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} exclude each other: leave one")
    if arguments.package and not arguments.cfg:
        raise ConfigError(f"--package {arguments.package} says what --cfg prints: add --cfg job, or leave it out")
    if arguments.resolve and not arguments.cfg:
        raise ConfigError("--resolve says how --cfg prints: add --cfg job, or leave it out")
    arguments.config_dirs = [] if arguments.config_dir is None else [Path(arguments.config_dir)]
    return arguments


def usage(config_dirs: Sequence[Path]) -> str:
    """Return the help: the groups with their choices, and the values as ``config.yaml`` has them, with its remarks."""
    text = (config_dir() / "config.yaml").read_text(encoding="utf-8")
    values = re.split(r"\n\n", text)[1:]
    shown = "\n\n".join(block for block in values if not block.startswith("hydra:"))
    choices = "\n".join(f"  {g}: {', '.join(c)}" for g, c in groups([config_dir(), *config_dirs]).items())
    return (
        f"se-train: train p_theta by the Standard Equation\n  {EQUATION}\n\nGroups (GROUP=CHOICE)\n{choices}\n\n"
        f"Values (KEY=VALUE)\n\n{shown.rstrip()}\n{EXAMPLES}"
    )


def needs_hydra(arguments: argparse.Namespace, composed: DictConfig) -> bool:
    """Whether Hydra itself must run the command: it prints something, or does what is configured around a job."""
    hydra = composed.hydra
    around = hydra.callbacks or hydra.job.env_set or hydra.job.chdir or hydra.output_subdir or hydra.mode
    logs = any(hydra[name].get("handlers") for name in ("job_logging", "hydra_logging"))
    return bool(arguments.hydra_help or arguments.cfg or arguments.info or around or logs)


def run_directory(composed: DictConfig) -> Path:
    """Return where the run goes: ``hydra.run.dir``.

    Raises:
        ConfigError: it cannot be resolved.
    """
    HydraConfig.instance().set_config(composed)  # it may refer to Hydra's own values
    try:
        return Path(str(composed.hydra.run.dir))
    except (OmegaConfBaseException, ValueError) as error:
        reason = str(getattr(error, "msg", error)).splitlines()[0].rstrip(".")
        raise ConfigError(f"hydra.run.dir leads nowhere ({reason}): write the directory itself") from error


def check_writable(directory: Path, key: str = "hydra.run.dir") -> None:
    """Refuse a directory that could not be made. Its name is not taken: others may be at work there.

    Args:
        directory: where a run or sweep goes.
        key: that says so.

    Raises:
        ConfigError: the message names the key and the reason.
    """
    try:
        place, missing = directory.absolute(), []
        while not _exists(place):
            missing.append(place.name)
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is no directory")
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it may not be written to")
        longest = os.pathconf(place, "PC_NAME_MAX")
        if any(len(os.fsencode(name)) > longest for name in missing):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if missing:  # some file systems (/proc) say yes, and make none
            os.rmdir(tempfile.mkdtemp(prefix=".se-", dir=place))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{key}={directory} cannot be the directory of a run or sweep ({reason}): choose another"
        ) from error


def _exists(path: Path) -> bool:
    """Whether something has a name, a link that leads nowhere included; a name that nothing can have is refused."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
