"""``make gpu`` before there is a GPU: its steps play small on a CPU, and one that fails or hangs stops no other."""

import json
import sys

import pytest
import torch

from benchmarks.gpu import verdicts
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.install import name_of, wanted
from benchmarks.gpu.report import table
from benchmarks.gpu.steps import QUALITY, SPEED, Step, play, steps
from benchmarks.rows import groups
from benchmarks.speed.__main__ import all_rows

ALL = [step.name for step in steps(dry=True)]


def test_every_row_that_needs_a_gpu_is_a_step():
    assert ALL[0] == "tests" and {name for name, row in all_rows().items() if row.gpu} == set(SPEED)
    assert sorted(ALL[1:]) == sorted([*SPEED, *(f"quality_{group}" for group in QUALITY)])
    for group, command in QUALITY.items():
        assert command in [words for words, _, _ in groups()[group]]
    (command,) = steps(dry=False)[0].commands
    assert "tests/training/test_gpu.py" in command and "tests/reliability/test_resume.py" in command


@pytest.mark.soak
def test_a_dry_run_reaches_every_step(soak, tmp_path, capsys):
    chosen = ALL if soak else ["gpu_vanilla"]
    assert main(["--dry-run", "--to", str(tmp_path), "--only", *chosen, "--minutes", "20"]) == 0
    assert "not passed: none" in capsys.readouterr().out
    (file,), (page,) = tmp_path.glob("*.json"), tmp_path.glob("*.md")
    content = json.loads(file.read_text())
    assert content["dry_run"] and list(content["steps"]) == chosen
    for name, record in content["steps"].items():
        assert record["state"] == "passed" and record["machine"]["torch"] == torch.__version__
        assert f"| `{name}` | " in page.read_text()
    assert content["steps"]["gpu_vanilla"]["speed"]["verdicts"][0]["value"] > 0
    if soak:
        counts = content["steps"]["tests"]["tests"]
        assert counts["skipped"] > 40 and counts["passed"] == counts["failed"] == 0
        assert all(content["steps"][f"quality_{group}"]["figures"] for group in QUALITY)
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(chosen) and len({line.count("|") for line in rows}) == 1


def step(name, code, limit=60.0, processes=1):
    def read(lines):
        return {"lines": lines}, ""

    return Step(name, "x", [["-c", code, "{out}"]] * processes, limit, read)


def test_a_step_that_fails_hangs_or_has_no_time_left_stops_no_other(tmp_path):
    write = "import sys, time; open(sys.argv[1], 'w').write('1\\n2')"
    chosen = [
        step("fails", "print('why'); 1 / 0"), step("hangs", f"{write}; sys.stdout.flush(); time.sleep(60)", limit=4.0),
        step("goes", write.replace("\\n2", "\\n"), processes=2),
    ]  # fmt: skip
    found = dict(play(chosen, 5, tmp_path))
    assert found["fails"]["state"] == "failed (exit code 1)" and "ZeroDivisionError" in found["fails"]["output"]
    assert found["hangs"]["state"] == "out of time after 4 s" and found["hangs"]["lines"] == [1]
    assert found["goes"]["state"] == "passed" and found["goes"]["lines"] == [1, 1]
    assert "output" not in found["goes"] and 4 <= found["hangs"]["seconds"] < 30
    late = dict(play(chosen, 0, tmp_path))
    assert {record["state"] for record in late.values()} == {"not run: no time left"} and list(late) == list(found)


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert "sees no GPU here: run it where one is, or add --dry-run" in capsys.readouterr().err


def test_figures_are_held_against_those_of_a_cpu():
    near, far = (
        verdicts.compared([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]),
        verdicts.compared([1.0, 2.0, 3.0], [10.0, 11.0, 12.0]),
    )
    # Both variances are 1: the standard error is sqrt(2/3), and t at 1e-3 with four degrees of freedom is 8.610.
    assert near["allowed"] == pytest.approx(8.610 * (2 / 3) ** 0.5, rel=1e-3)
    assert near["agrees"] and not far["agrees"] and far["apart"] == pytest.approx(-9)
    assert verdicts.compared([8.0], [8.0] * 3)["agrees"] and not verdicts.compared([7.0], [8.0] * 3)["agrees"]
    read = verdicts.of_quality("flow", QUALITY["flow"], dry=False)
    lines = [{"seed": k, "seconds": 1.0, "figures": {"nll": value}} for k, value in enumerate((2.86, 2.87))]
    assert read(lines)[1] == "" and len(read(lines)[0]["figures"]["nll"]["gpu_values"]) == 2
    assert read([lines[0] | {"figures": {"nll": 4.0}}])[1] == "failed: nll not as on a CPU"
    assert read([])[1] == "failed: no figure"


def test_what_was_not_measured_or_failed_is_told():
    lines = [{"test": "a", "outcome": "passed", "why": ""}, {"test": "b", "outcome": "failed", "why": "E  x\nE  y"}]
    found, why = verdicts.of_tests(lines)
    assert found["tests"] == {"passed": 1, "failed": 1, "skipped": 0} and why == "failed: 1 tests"
    assert verdicts.of_tests([])[1] and verdicts.of_speed([])[1] == "not measured: nothing was written"
    own = {"torch": "2", "cuda": "13", "driver": "1", "python": "3", "commit": "c", "device": "D"}
    record = {"what": "x", "seconds": 1.0, "state": why, "machine": own, "output": "a\nb", **found}
    page = table({"device": "D", "dry_run": False, "steps": {"tests": record}})
    assert "1 passed; 1 failed; 0 skipped" in page and "`b` failed:\n\n    E  x\n    E  y" in page


def test_the_environment_lists_all_but_torch():
    must, optional = wanted()
    names = {name_of(line) for line in must}
    assert {"hydra-core", "geomloss", "numpy", "pytest"} <= names and "torch" not in names | set(optional)
    assert {name_of(line) for line in optional} == {"pytest-xdist", "zuko", "nflows", "normflows"}
    assert sys.version_info >= (3, 11)  # tomllib
