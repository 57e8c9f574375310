"""The configuration of a run as plain values, quickly: hundreds of runs are read for one table.

Nothing is validated or built; what :func:`~se_framework.config.files.read_yaml` refuses of a stranger is refused here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from se_framework.config.files import LARGEST, checked, yaml_told
from se_framework.reading import read_bytes

_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
"""Numbers such as 1e-3, which YAML 1.1 takes for texts and OmegaConf for numbers."""


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """By libyaml where PyYAML was built with it, ten times as quick; reads numbers and dates as OmegaConf does."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def read_plain(file: Path, what: str) -> dict[str, Any] | None:
    """Return the mapping that a run's YAML file holds, or None for an empty file.

    Args:
        file: its path, not a link.
        what: how an error names it.

    Raises:
        ConfigError: as :func:`~se_framework.config.files.read_yaml` has it for files of strangers.
    """
    with yaml_told(what):
        text = read_bytes(file, LARGEST).decode("utf-8-sig")
        root = checked(text, what, strangers=True, loader=Loader)
        if root is None:
            return None
        found: dict[str, Any] = Loader("").construct_document(root)
        return found
