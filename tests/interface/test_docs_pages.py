"""The commands of the tutorial and of the guides work as they stand, in order, in a folder of their own.

``make test`` composes every configuration that is typed; ``make soak`` runs all commands, and what they print is what
the pages show, numbers aside.
"""

import re
import shlex

import pytest

from se_framework.config.composing import compose
from se_framework.errors import ConfigError
from tests.support.commands import call
from tests.support.pages import DOCS, argv, commands, write_files

STEPS = sorted((DOCS / "tutorial").glob("[0-9]*.md"))
GUIDES = {p.stem: [p] for p in sorted((DOCS / "howto").glob("*.md")) if "```console" in p.read_text()}
PLACES = {"tutorial": STEPS, **GUIDES}
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?")
every_place = pytest.mark.parametrize("place", PLACES)


def masked(line):
    """Return a line without its numbers, and without the blanks that they are padded with."""
    return re.sub(r"\s+", " ", re.sub(r"\[\s+", "[", NUMBER.sub("#", line))).strip()


def check_shown(command, shown, done, folder):
    """What a page shows must be among the lines that were printed; ``...`` stands for any, /home/me for the folder."""
    refused = bool(shown) and shown[-1].startswith("se-train: ") and " all in " not in shown[-1]
    assert done.returncode == int(refused), (command, done.stderr[-2000:])
    printed = {masked(line) for line in (done.stdout + done.stderr).replace(str(folder), "/home/me").splitlines()}
    for line in shown:
        assert line == "..." or masked(line) in printed, (command, line, printed)
    assert shown or not done.stdout.strip(), (command, "prints what the page does not show", done.stdout)


@every_place
def test_what_is_typed_is_a_configuration(place, tmp_path, monkeypatch):
    """Of a sweep the first job; a run that goes on has its own configuration."""
    monkeypatch.chdir(tmp_path)
    for page in PLACES[place]:
        write_files(page.read_text(), tmp_path)
        for command, shown in commands(page.read_text()):
            name, *words = shlex.split(command)
            folders = [tmp_path / words[k + 1] for k, word in enumerate(words) if word == "--config-dir"]
            words = [w for k, w in enumerate(words) if "=" in w and (k == 0 or words[k - 1] != "--config-dir")]
            if name != "se-train" or any(w.startswith("resume=") for w in words):
                continue
            first = [w.split(",")[0] if "-m" in command and "[" not in w else w for w in words]
            composed = compose(None, [w for w in first if not w.startswith("hydra.")], folders)
            assert composed.loop.rounds >= 1, (command, shown)


def test_a_key_that_is_none_would_be_found(tmp_path, monkeypatch):
    monkeypatch.setitem(PLACES, "broken", [tmp_path / "page.md"])
    (tmp_path / "page.md").write_text("```console\n$ se-train experiment=fgan loop.round=3\n...\n```\n")
    with pytest.raises(ConfigError, match="did you mean 'loop.rounds'"):
        test_what_is_typed_is_a_configuration("broken", tmp_path, monkeypatch)


@pytest.mark.soak
@every_place
def test_the_commands_print_what_the_page_shows(place, tmp_path, soak):
    if not soak:
        pytest.skip("make soak runs the commands of the pages, some minutes")
    for page in PLACES[place]:
        write_files(page.read_text(), tmp_path)
        for command, shown in commands(page.read_text()):
            check_shown(command, shown, call(argv(command), tmp_path), tmp_path)
