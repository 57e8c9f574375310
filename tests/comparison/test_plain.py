"""A run's configuration read quickly: the values that OmegaConf reads, and what is refused of a stranger."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from se_framework.config.files import config_dir, read_yaml
from se_framework.config.plain import read_plain
from se_framework.errors import ConfigError

TEXTS = """a: 1e-3|a: 1.0e-05|a: -2E+3|a: 1_000|a: 1_0e5|a: .5|a: 5.|a: .inf|a: .nan|a: 0x1f|a: 012|a: 0b11|a: 1:30
a: 2020-01-01|a: 2020-01-01 10:00:00|a: yes|a: ~|a: null|a: 'x'|a: "1e3"|a: [1, 2e2, x]|a: {b: {c: -1e2}}|a: +1|a: e5
a: 1e|a: 1e5x|a:|{}""".replace("\n", "|").split("|")
REFUSED = [
    "a: &x 1\nb: *x", "a: ${b}", "a: !!python/name:os.system", "a: !x 1", "a: 1\na: 2", "[1]", "a: [", "7", "a: =",
    "1: {2: 3}\n? [x]\n: 4", "a: " + "[" * 40 + "]" * 40, "a: " + "9" * 100, "a: \x01", "? {a: 1}\n: 2", "a: *b",
    "~: 1", "a: <<",
]  # fmt: skip


def equal(a, b):
    return repr(a) == repr(b)  # nan is nan, and 1 is not 1.0


@pytest.mark.parametrize("text", TEXTS)
def test_values_are_those_that_omegaconf_reads(text, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    slow = read_yaml(file, "it", strangers=True)
    assert equal(read_plain(file, "it"), OmegaConf.to_container(slow))


def test_every_shipped_configuration_is_read_alike():
    files = [file for file in config_dir().rglob("*.yaml") if file.name != "config.yaml"]
    assert len(files) > 80
    for file in files:
        slow = read_yaml(file, "it", strangers=True)
        assert equal(read_plain(file, "it"), None if slow is None else OmegaConf.to_container(slow)), file


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_of_a_stranger_is_refused(text, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        read_yaml(file, "it", strangers=True)
    with pytest.raises(ConfigError, match="^it"):
        read_plain(file, "it")


def test_only_regular_files_of_limited_size_are_read(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("a: 1\n" + "#" * 2**20)
    with pytest.raises(ConfigError, match="more than the 1048576"):
        read_plain(file, "it")
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(ConfigError, match="symbolic link"):
        read_plain(tmp_path / "link", "it")
    with pytest.raises(ConfigError, match="is missing"):
        read_plain(tmp_path / "none", "it")
    file.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        read_plain(file, "it")
    file.write_text("")
    assert read_plain(file, "it") is None
