"""The help, by topic; and completion in a shell, as bash asks for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from se_framework import __main__ as command
from se_framework.config.completing import with_folder
from se_framework.config.files import config_dir, groups
from se_framework.config.helping import SECTIONS, usage, values
from se_framework.config.schema import Config
from se_framework.errors import ConfigError
from tests.support.commands import fresh

LINES, COLUMNS = 60, 112


def test_every_group_and_key_stands_in_one_section():
    of_groups = [group for _, own, _ in SECTIONS for group in own]
    of_keys = [key for _, _, keys in SECTIONS for key in keys]
    assert sorted(of_groups) == sorted(groups([config_dir()]))
    assert sorted(of_keys) == sorted(values()) == sorted(set(Config.model_fields) - set(of_groups))


def test_the_help_is_one_screen_and_names_every_choice_and_key():
    lines = usage([]).splitlines()
    assert len(lines) <= LINES and max(map(len, lines)) <= COLUMNS
    for group, choices in groups([config_dir()]).items():
        start = next(i for i, line in enumerate(lines) if line.startswith(f"  {group}="))
        end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" " * 16))
        assert " ".join(lines[start:end]).split("=")[1].split() == choices
    words = {word.rstrip(".") for line in lines for word in line.split()}
    assert set(Config.model_fields) - set(groups([config_dir()])) <= words
    assert {"rounds", "warmup", "precision", "theta"} <= words


def test_a_topic_tells_more(tmp_path):
    of_loop = usage([], "loop").splitlines()
    assert of_loop[0] == "loop:" and any(re.match(r"  rounds: 5000 +# one round", line) for line in of_loop)
    assert usage([], "seed") == "seed: 0"
    of_group = usage([], "tracker").splitlines()
    assert (
        of_group[0] == "tracker=CHOICE"
        and [line.split()[0] for line in of_group[1:]] == groups([config_dir()])["tracker"]
    )
    assert any("Weights & Biases" in line and "keys: project mode entity" in line for line in of_group)
    experiments = {line.split()[0]: line for line in usage([], "experiment").splitlines()[1:]}
    assert "min_theta" in experiments["wgan_gp"] and "keys:" not in experiments["wgan_gp"]
    (tmp_path / "optimiser_of_mine").mkdir()
    (tmp_path / "optimiser_of_mine" / "a.yaml").write_text("# mine\nb: 1\n")
    assert "optimiser_of_mine= a" in usage([tmp_path]) and "Yours" in usage([tmp_path]) and "Yours" not in usage([])
    assert usage([tmp_path], "optimiser_of_mine").splitlines()[1].split(None, 1) == ["a", "mine; keys: b"]
    with pytest.raises(ConfigError, match="--help lop: no such topic; did you mean 'loop'"):
        usage([], "lop")


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["--help"], "se-train GROUP=CHOICE"),
        (["-h", "data=moons", "seed=1"], "se-train GROUP=CHOICE"),
        (["data=moons", "--help"], "se-train GROUP=CHOICE"),
        (["--help", "players"], "players:"),
        (["--help", "all"], "min_theta"),
    ],
)
def test_the_command_prints_it(words, first, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["se-train", *words])
    command.main()
    assert capsys.readouterr().out.startswith(first)


def test_overrides_beside_the_help_are_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["se-train", "--help", "data=mons"])
    with pytest.raises(SystemExit):
        command.main()
    assert "data=mons: no such choice; did you mean 'moons'" in capsys.readouterr().err


LOADED = "import sys; from se_framework.__main__ import main; main(); print('torch' in sys.modules)"


def test_help_and_completion_import_no_torch(tmp_path):
    for words, line in (
        (["--help"], ""),
        (["--help", "divergence"], ""),
        (["-sc", "query=bash"], "se-train divergence=k"),
    ):
        done = fresh([sys.executable, "-c", LOADED, *words], tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False", done.stderr


# -- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("se-train diver", ["divergence="], ["data="]),
        ("se-train divergence=k", ["divergence=kl"], ["divergence=jeffreys"]),
        ("se-train loop.ro", ["loop.rounds="], ["loop.decay="]),
        ("se-train metric=conv metric.network.", ["metric.network.width="], ["metric.network.depth="]),
        ("se-train tracker=", ["tracker=mlflow", "tracker=none", "tracker=tensorboard", "tracker=wandb"], []),
        ("se-train --config-dir conf divergence=m", ["divergence=mine", "divergence=mmd"], ["divergence=kl"]),
    ],
)
def test_a_shell_is_offered_groups_choices_and_keys(line, offered, not_offered, tmp_path, monkeypatch, capsys):
    (tmp_path / "conf" / "divergence").mkdir(parents=True)
    (tmp_path / "conf" / "divergence" / "mine.yaml").write_text("_target_: divergences.KL\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COMP_LINE", line), monkeypatch.setenv("COMP_POINT", str(len(line)))
    monkeypatch.setattr(sys, "argv", ["se-train", "-sc", "query=bash"])
    command.main()
    found = capsys.readouterr().out.split()
    assert (
        set(offered) <= set(found)
        and not set(not_offered) & set(found)
        and not any(p.name != "conf" for p in tmp_path.iterdir())
    )


def test_a_folder_is_taken_from_the_line_only_where_a_shell_asks(tmp_path):
    (tmp_path / "conf").mkdir()
    line = f"se-train -cd {tmp_path / 'conf'} data="
    assert with_folder(["-sc", "query=bash"], line) == ["-sc", "query=bash", "--config-dir", str(tmp_path / "conf")]
    assert with_folder(["data=moons"], line) == ["data=moons"]
    assert with_folder(["-sc", "query=bash"], line.replace("conf", "gone")) == ["-sc", "query=bash"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_takes_what_is_printed(tmp_path, monkeypatch, capfd):
    """The function that bash is given asks a command of that name; here it is one that answers at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["se-train", "-sc", "install=bash"])
    command.main()
    # Hydra writes the name of the program that runs.
    script = capfd.readouterr().out
    assert "complete -o nospace -o default -F hydra_bash_completion" in script
    name = script.rstrip().splitlines()[-1].split()[-1]
    stub = f"{name}() {{ echo data=moons data=digits; }}; command() {{ echo /bin/true; }}"
    asked = f'COMP_CWORD=1; COMP_LINE="{name} data=m"; hydra_bash_completion; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{stub}\n{script}\n{asked}"], capture_output=True, text=True)
    assert done.stdout.split() == ["data=moons"], done.stderr
