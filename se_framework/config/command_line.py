"""The command line of ``se-train``, refused where it is wrong before Hydra makes a directory for it.

Imports neither torch nor models.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from se_framework.config.composing import (
    check_config_dirs,
    check_overrides,
    compose_all,
    config_dir,
    groups,
    prepare_imports,
)
from se_framework.config.schema import validate
from se_framework.errors import ConfigError

SWITCHES = ("--help -h", "--hydra-help", "--resolve", "--run -r", "--multirun -m", "--shell-completion -sc")
VALUES = ("--package -p", "--config-path -cp", "--config-name -cn", "--config-dir -cd", "--experimental-rerun")
PRINTED = ("job", "hydra", "all")
TOLD = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


class _Parser(argparse.ArgumentParser):
    """Takes the flags that ``hydra.main`` takes, which reads the same command line after us."""

    def __init__(self) -> None:
        super().__init__(add_help=False)
        self.add_argument("overrides", nargs="*")
        for names in SWITCHES:
            self.add_argument(*names.split(), action="store_true")
        for names in VALUES:
            self.add_argument(*names.split())
        self.add_argument("--cfg", "-c", choices=PRINTED)
        self.add_argument("--info", "-i", nargs="?", const="all", choices=TOLD)
        self.add_argument("--version", action="version", version=f"Hydra {hydra.__version__}")

    def error(self, message: str) -> NoReturn:
        """Refuse in one sentence, in the place of a usage text."""
        unknown = message.partition("arguments: ")[2].split()
        interrupted = any("=" in word and not word.startswith("-") for word in unknown)
        mend = "flags go before the first KEY=VALUE, or after the last" if interrupted else "se-train --help lists them"
        raise ConfigError(f"{message}: {mend}")


def check(command_line: list[str]) -> None:
    """Refuse a command line that cannot be composed before Hydra makes a directory for it.

    Raises:
        ConfigError: one sentence that names the flag or key.
    """
    arguments = parse(command_line)
    if arguments.shell_completion:
        return
    dirs = [] if arguments.config_dir is None else [Path(arguments.config_dir)]
    if arguments.multirun:
        check_config_dirs(dirs)
        check_overrides(arguments.overrides, groups([config_dir(), *dirs]), sweep=True)
        if any(o.startswith("resume=") and o != "resume=auto" for o in arguments.overrides):
            raise ConfigError("a sweep goes on with resume=auto; to resume one run by its directory leave out -m")
        return
    composed = compose_all(arguments.overrides, dirs)
    if arguments.help or arguments.hydra_help or arguments.cfg or arguments.info:
        return
    config = validate(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))
    directory = run_directory(composed)
    named = config.resume not in (None, "auto")
    if named and not is_file(Path(config.resume) / "config.yaml"):
        raise ConfigError(f"resume={config.resume}: not a run directory (it has no config.yaml)")
    if not named:
        check_writable(directory)
    prepare_imports(own=not named or bool(config.trust))


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
    if arguments.resolve and not (arguments.cfg or arguments.help):
        raise ConfigError("--resolve says how --cfg prints: add --cfg job, or leave it out")
    return arguments


def run_directory(composed: DictConfig) -> Path:
    """Return where Hydra will put the run.

    Raises:
        ConfigError: ``hydra.run.dir`` cannot be resolved.
    """
    HydraConfig.instance().set_config(composed)  # it may refer to Hydra's own values
    try:
        return Path(str(composed.hydra.run.dir))
    except (OmegaConfBaseException, ValueError) as error:
        reason = " ".join(str(error).partition("full_key:")[0].split())
        raise ConfigError(f"hydra.run.dir leads nowhere ({reason}): write the directory itself") from error


def check_writable(directory: Path) -> None:
    """Refuse a directory that cannot be made: what Hydra would do is done, and undone.

    Raises:
        ConfigError: the message names ``hydra.run.dir`` and the reason.
    """
    made: list[Path] = []
    try:
        for folder in (*reversed(directory.parents), directory):
            if not folder.is_dir():
                folder.mkdir()
                made.append(folder)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it may not be written to")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"hydra.run.dir={directory} cannot be a run's directory ({reason}): choose another"
        ) from error
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False
