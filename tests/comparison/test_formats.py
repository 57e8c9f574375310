"""One table in every format: it fits, it reads back, and texts of strangers stay texts."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
import types
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from se_framework.comparison.comparison import compare
from se_framework.comparison.formats import FORMATS, html, latex, markdown, text
from se_framework.comparison.records import as_csv, long_form
from se_framework.comparison.runs import read_runs
from se_framework.comparison.sentence import rounded
from se_framework.errors import ConfigError
from tests.support.fake_runs import fake_rows, fake_run, w2

ROWS = {"kl": [0.5, 0.52, None], "gan": [0.9, math.nan, 0.939], "jensen_shannon": [0.6, 0.61, 0.7]}
EVIL = '<script>alert("x")</script>|&_%\\$#{}~^ \x1b[2J=1+1'


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return compare(read_runs([fake_rows(folder, ROWS)]))


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """Runs of a stranger: a setting, a unit, a reference, a score and a reason hold what formats take for their own."""
    folder = tmp_path_factory.mktemp("strange")
    for k, value in enumerate((EVIL, "plain" * 30)):
        entry = w2(0.5 + k, unit=EVIL, references={EVIL: 0.25})
        run = fake_run(folder / str(k), ["divergence=kl"], 0, {EVIL: entry})
        file = run / "config.yaml"
        file.write_text(file.read_text().replace("activation: relu", f"activation: {json.dumps(value)}"))
    (fake_run(folder / "failed") / "failure").mkdir()
    record = {"player": "phi", "round": 7, "term": EVIL, "source": "s"}
    (folder / "failed" / "failure" / "failure.json").write_text(json.dumps(record))
    return compare(read_runs([folder]))


# -- as data ----------------------------------------------------------------------------------------------------------


def test_csv_holds_every_run_and_its_rows_figures(found):
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(lines) == 9
    kl = [line for line in lines if line["divergence"] == "kl"]
    assert [(line["seed"], line["value"], line["status"]) for line in kl] == [
        ("0", "0.5", "finished"), ("1", "0.52", "finished"), ("2", "", "failed"),
    ]  # fmt: skip
    row = found.objectives[0]
    assert {float(line["mean"]) for line in kl} == {row.mean} and {line["verdict"] for line in kl} == {"best"}
    assert "E_q_f of player phi" in kl[2]["why"]
    assert [line["value"] for line in lines if line["divergence"] == "gan"] == ["0.9", "nan", "0.939"]


def test_a_setting_of_a_columns_name_stands_beside_it(found):
    row = replace(found.objectives[0], settings={"n": 3})
    (line, *_) = long_form(replace(found, objectives=(row,)))
    assert line["setting.n"] == 3 and line["n"] == 2


def test_json_holds_all_and_is_strict(found):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    tree = json.loads(FORMATS["json"](found), parse_constant=refuse)
    assert [own["settings"] for own in tree["objectives"]] == [row.settings for row in found.objectives]
    points = {own["label"]: [point["value"] for point in own["points"]] for own in tree["objectives"]}
    assert points["divergence=kl"] == [0.5, 0.52, None] and points["divergence=gan"] == [0.9, "NaN", 0.939]
    assert tree["sentence"] == found.sentence and tree["correction"].startswith("Holm")
    tests = {own["label"].removeprefix("divergence="): own["test"] for own in tree["objectives"]}
    # jensen_shannon shares two of its three seeds with kl; gan one of its two
    assert tests == {"kl": None, "jensen_shannon": "paired t", "gan": "Welch's t"}


def test_a_frame_is_the_long_form(found, monkeypatch):
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = list
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert found.frame() == long_form(found)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="a frame needs pandas, which is not installed"):
        found.frame()


# -- as a table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("which", ["found", "strange"])
def test_a_table_fits_the_terminal(which, width, request):
    table = text(request.getfixturevalue(which), width)
    assert all(len(line) <= width for line in table.splitlines())
    assert table.replace("\n", "").isprintable()


def test_what_has_no_room_is_named_and_settings_and_figures_stay(found):
    wide, narrow = text(found, 160), text(found, 80)
    assert "left out" not in wide and "by seed" in wide.splitlines()[0] and "difference" in wide.splitlines()[0]
    head = narrow.splitlines()[0]
    assert head.startswith("divergence") and "w2 (95 %)" in head and "runs" in head and " p " in head
    assert "left out for want of room: difference" in narrow


def test_runs_that_have_no_value_are_counted_in_their_row(found):
    lines = text(found, 160).splitlines()
    assert "2, 1 failed" in next(line for line in lines if line.startswith("kl"))
    row = next(line for line in lines if line.startswith("gan"))
    assert "2, 1 not finite" in row and "0.9 nan 0.939" in row


def test_many_settings_are_cut_and_the_last_left_out(found):
    settings = {f"plus.other.key{k}": "value" * 5 for k in range(9)}
    rows = tuple(replace(row, settings=settings) for row in found.objectives)
    table = text(replace(found, objectives=rows, columns=tuple(settings)), 80)
    assert all(len(line) <= 80 for line in table.splitlines()) and "left out for want of room" in table
    assert "valuev.." in table and "0.51 [0.38, 0.64]" in table and "2, 1 failed" in table


def test_figures_have_two_digits_of_their_interval():
    assert rounded(1.23456, 1.2, 1.26912) == ("1.235", "1.200", "1.269")
    assert rounded(123.456, 100.0, 146.9) == ("123", "100", "147")
    assert rounded(0.5, 0.5, 0.5) == ("0.5", "0.5", "0.5")
    assert rounded(1e-9, 0.9e-9, 1.1e-9) == ("1e-09", "9e-10", "1.1e-09")
    assert rounded(-0.00123, -0.00133, -0.00113) == ("-0.00123", "-0.00133", "-0.00113")


def test_markdown_has_as_many_cells_in_every_line(found, strange):
    for own in (found, strange):
        table = markdown(own).partition("\n\n")[0].splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1 and len(table) == 2 + len(
            own.objectives
        )
        assert set(table[1]) <= set("|-: ")


def test_latex_escapes(strange):
    table = latex(strange).partition("\\begin{tabular}")[2]
    cells = re.sub(r"\\text\w+\{\}|\\[_%&#${}]|\\\\|\\\w+|\{\w+\}", "", table)
    assert not set("_%#$^~\\") & set(cells)
    lines = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not attrs

    def handle_data(self, data):
        self.texts.append(data)


def test_html_is_a_table_and_texts(found, strange):
    for own in (found, strange):
        page = Tags(own._repr_html_())
        assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td", "p"}
        assert page.tags.count("tr") == 1 + len(own.objectives)
    assert any("<script>" in said for said in page.texts) and html(strange).isprintable()


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_hands_on_commands_to_the_terminal(name, strange):
    assert FORMATS[name](strange).replace("\n", "").replace("\r", "").isprintable()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_tables_of_nothing_and_of_tasks(name, tmp_path):
    (fake_run(tmp_path / "torn") / "config.yaml").write_text("[")
    assert FORMATS[name](compare(read_runs([tmp_path / "torn"])))
    for task in ("ring8", "moons"):
        fake_rows(tmp_path / task, {"kl": [0.5, 0.6], "gan": [0.7, 0.9]}, f"data={task}")
    made = FORMATS[name](compare(read_runs([tmp_path / "ring8", tmp_path / "moons"])))
    assert "moons" in made and ("mean rank" in made or name in ("csv", "json"))
