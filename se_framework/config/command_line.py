"""The command line of ``se-train``: its flags, and what is refused before a directory is made.

Imports neither torch nor models.
"""

from __future__ import annotations

import argparse
import errno
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from hydra import __version__ as hydra_version
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from se_framework import __version__
from se_framework.errors import ConfigError

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
            more: dict[str, Any] = {"action": "store_true"} if "--help" not in names else {"nargs": "?", "const": ""}
            self.add_argument(*names.split(), **more)
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
    if arguments.help is not None and "=" in arguments.help:  # the first override: a topic has no value
        arguments.overrides.insert(0, arguments.help)
        arguments.help = ""
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
