"""The flags of ``se-train``: read before Hydra reads them, so both must know the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from se_framework.config.command_line import SWITCHES, VALUES, parse
from se_framework.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_we_know_the_flags_that_hydra_lists(tmp_path):
    command = [sys.executable, "-m", "se_framework", "--hydra-help"]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300).stdout
    listed = re.findall(r"^(--[a-z-]+)(?:,(-[a-z]+))? :", told, re.MULTILINE)
    ours = [*(names.split() for names in (*SWITCHES, *VALUES)), ["--cfg", "-c"], ["--info", "-i"], ["--version"]]
    assert {tuple(name for name in names if name) for names in listed} == {tuple(names) for names in ours}


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (["a=1", "-m", "b=2,3"], {"overrides": ["a=1"], "multirun": True}),
        (["--info"], {"info": "all"}),
        (["-i", "plugins"], {"info": "plugins"}),
        (
            ["-cd", "here", "--cfg", "job", "-p", "model", "--resolve"],
            {"config_dir": "here", "cfg": "job", "package": "model"},
        ),
    ],
    ids=["multirun", "info", "short", "cfg"],
)
def test_flags_and_overrides_are_told_apart(words, want):
    if words[-1] == "b=2,3":
        with pytest.raises(ConfigError, match="flags go before the first KEY=VALUE"):
            parse(words)
        return
    assert want.items() <= vars(parse(words)).items()
