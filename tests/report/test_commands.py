"""se-report and se-watch as they are typed: what they write, and what they refuse, in one sentence."""

import os
import signal
import sys
import urllib.error
import urllib.request

import pytest

from se_framework.commands import report, watch
from tests.support.commands import start, until
from tests.support.fake_runs import w2
from tests.support.reported import Page, shown_run, without_vega

WATCH = [sys.executable, "-m", "se_framework.commands.watch"]
QUICK = """
import se_framework.comparison.report.build, se_framework.comparison.report.page
for module in ("build", "page"):
    setattr(getattr(se_framework.comparison.report, module), "runtime", lambda: "window.seEmbed = null;")
"""


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Leave Vega out: what is drawn is tested in a browser."""
    with without_vega():
        yield


@pytest.fixture
def typed(monkeypatch, capsys, tmp_path):
    """Type a command in an empty folder and return its code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(command, *words):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        code = 0
        try:
            command.main()
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


@pytest.fixture
def run(tmp_path):
    return shown_run(tmp_path / "run")


def test_a_report_is_written_where_it_was_asked_for(typed, run, tmp_path):
    code, out, err = typed(report, run, "out=page.html", "critic=false")
    assert (code, err) == (0, "") and "se-report: 0." in out and "MB in page.html" in out
    assert Page((tmp_path / "page.html").read_text()).problems == []
    assert typed(report, run, "--critic=false")[0] == 0 and (tmp_path / "report.html").exists()


def test_a_run_without_a_checkpoint_stands_without_its_critic(typed, run, tmp_path):
    assert typed(report, run)[0] == 0
    assert "Not shown: there is no checkpoint yet" in Page((tmp_path / "report.html").read_text()).text


def test_several_runs_and_words_in_any_order(typed, run, tmp_path):
    other = shown_run(tmp_path / "other", ["divergence=kl"], scores={"w2": w2(0.1)})
    assert typed(report, run, "out=page.html", other, "score=w2")[0] == 0
    assert "2 runs of 2 objectives" in Page((tmp_path / "page.html").read_text()).text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["absent"], "absent is no run: it does not exist; pass directories of runs or sweeps"),
        ([], "a run directory is needed"),
        (["run", "out=page.pdf"], "page.pdf must end in .html"),
        (["run", "out=nowhere/page.html"], "the directory nowhere does not exist"),
        (["run", "critic=maybe"], "critic must be true or false, got 'maybe'"),
        (["run", "x=divergence"], "x=divergence: a map needs runs that differ, and run is one run: leave it out"),
        (["run", "other", "x=depth"], "x=depth: the runs do not differ in it: did you mean"),
        (["run", "other", "score=fid"], "score=fid"),
        (["run", "colour=red"], "unknown key 'colour'"),
        (["empty"], "empty has no rows yet, so there is nothing to show: let it train on"),
        (["run", "out=closed/page.html"], "out=closed/page.html cannot be written"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(typed, run, tmp_path, words, told):
    shown_run(tmp_path / "other", ["divergence=kl", "model.depth=2"])
    empty = shown_run(tmp_path / "empty", scores=None)
    (empty / "metrics.csv").unlink()
    (tmp_path / "closed").mkdir()
    if any("closed" in word for word in words):
        (tmp_path / "closed" / "page.html").mkdir() if os.getuid() == 0 else (tmp_path / "closed").chmod(0o500)
        told = "page.html is a directory" if os.getuid() == 0 else told
    before = {file for file in tmp_path.rglob("*.html") if file.is_file()}
    code, out, err = typed(report, *words)
    assert code == 1 and out == "" and err.startswith("se-report: ")
    assert told in err and err.count("\n") == 1
    assert {file for file in tmp_path.rglob("*.html") if file.is_file()} == before


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_no_other_host_is_served(typed, run, host):
    code, _, err = typed(watch, run, f"host={host}")
    assert code == 1 and "host must be 127.0.0.1" in err and err.count("\n") == 1


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_is_a_port(typed, run, port):
    code, _, err = typed(watch, run, f"port={port}")
    assert code == 1 and "port must" in err and err.count("\n") == 1


def test_a_watch_serves_until_ctrl_c_and_ends_with_one_line(run, tmp_path):
    process = start([*WATCH, run, "critic=false"], tmp_path, QUICK)
    until(lambda: "http://127.0.0.1:" in process.out.read_text(), "the address")
    address = process.out.read_text().split("open ")[1].split()[0]
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert Page(answer.read().decode()).problems == []
    process.send_signal(signal.SIGINT)
    done = process.wait()
    assert done.returncode == 130 and done.stderr == "se-watch: stopped by SIGINT\n"
    assert done.stdout.count("\n") == 1
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=60)
