"""The page in a real browser: nothing on its console, charts that zoom and are read by keys, sliders, sorting, dark.

Played by ``make soak``; skipped where no Chromium is installed (Debian: ``apt-get install chromium``).
"""

import re
import threading

import pytest

from se_framework.comparison.report.build import Maker
from se_framework.comparison.report.content import Content
from se_framework.comparison.report.page import page
from se_framework.comparison.report.server import Live, Server
from tests.support import browser
from tests.support.fake_runs import w2
from tests.support.reported import frame, rows_of, shown_run, write_table

PROGRAM = browser.found()
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed, in which the page could be opened"),
]
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(autouse=True)
def at_length(soak):
    if not soak:
        pytest.skip("in make soak only: a browser's start and its pages take a quarter of a minute")


@pytest.fixture(scope="module")
def window():
    one = browser.Browser(PROGRAM)
    yield one
    one.close()


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    scores = {"w2": w2(0.5), EVIL: w2(1.0, unit=EVIL)}
    path = shown_run(folder / "run", [], 0, scores, rows_of(40) | {EVIL: [1.0] * 40}, [0, 100, 200], warnings=[EVIL])
    frame(path / "samples.png", 99)
    file = folder / "single.html"
    file.write_text(page(Maker([path], critic=False).content()))
    return file


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    for j, name in enumerate(("kl", "pearson", "gan")):
        for k, metric in enumerate(("mlp", "mlp_r1")):
            for seed in range(2):
                words = [f"divergence={name}", f"metric={metric}"]
                value = 10.0**j * (1 + k) + seed if (j, k) != (0, 0) else (7 + seed) * 1e-6
                shown_run(folder / "s" / f"{name}{metric}{seed}", words, seed, value)
    file = folder / "several.html"
    file.write_text(page(Maker([folder / "s"]).content()))
    return file


def opened(window, file, width=1280, height=900, scheme="light"):
    window.said.clear(), window.requested.clear()
    window.media(scheme)
    window.open(f"file://{file}", width, height)


def clean(window):
    """Whether nothing was said on the console, and nothing asked for but the page itself."""
    away = [url for url in window.requested if not url.startswith(("file:", "data:", "http://127.0.0.1"))]
    assert window.said == [] and away == []
    return True


def domain(window, k=0):
    """Return the ends of the first axis of a chart, as its labels show them."""
    found = f"document.querySelectorAll('.plot')[{k}].querySelectorAll('[aria-label^=X-axis] .role-axis-label text')"
    return [label.replace(",", "") for label in window.get(f"[...{found}].map(t => t.textContent)")]


def test_the_page_of_a_run_draws_every_chart_without_a_word(window, single):
    opened(window, single)
    drawn = window.get("[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('svg path').length)")
    assert len(drawn) >= 9 and min(drawn) > 2 and clean(window)
    assert window.get("document.title") == "run"  # a stranger's text ran nothing
    assert window.get("document.querySelectorAll('math munder').length") == 3


def test_a_landscape_fills_its_corners_and_arrows_lie_on_it(window, tmp_path):
    """Two by two cells over (0, 0) to (4, 2), one of them without a value: it is empty and the axes stay."""
    cells = {"x": [0, 0, 2, 2], "x2": [2, 2, 4, 4], "y": [0, 1, 0, 1], "y2": [1, 2, 1, 2], "v": [-1, 1, 0.5, None]}
    arrow = {"x": [1], "y": [1], "x2": [3], "y2": [1]}
    content = Content("plane")
    ends = {"left": 0, "right": 4, "low": 0, "high": 2, "reach": 1}
    data = {"cells": [cells], "points": [{"x": [1], "y": [1]}], "arrows": [arrow]}
    content.add("critic", content.chart("plane-signed", "f", data, signals=ends))
    (tmp_path / "plane.html").write_text(page(content))
    opened(window, tmp_path / "plane.html")
    assert domain(window)[::2] == ["0", "2", "4"] or domain(window) == ["0", "1", "2", "3", "4"]
    count = "document.querySelectorAll('.plot .{}.role-mark > *').length"
    assert window.get(count.format("mark-rect")) == 3 and window.get(count.format("mark-rule")) == 1
    fills = window.get(
        "[...document.querySelectorAll('.plot .mark-rect.role-mark > *')].map(r => r.getAttribute('fill'))"
    )
    assert len(set(fills)) == 3 and clean(window)


def test_dragging_zooms_all_charts_and_a_double_click_shows_all_rounds(window, single):
    opened(window, single)
    window.get("document.querySelector('.plot').scrollIntoView({block: 'center'})")
    box = window.get(
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.plot').getBoundingClientRect())"
    )
    before = window.get("document.querySelectorAll('.plot svg')[3].outerHTML")
    window.drag(box[0] + 0.4 * box[2], box[1] + 0.4 * box[3], box[0] + 0.7 * box[2])
    values = window.get("['from', 'to'].map(n => Number(document.querySelector('form.zoom').elements[n].value))")
    assert 50 < values[0] < values[1] < 350
    assert window.get("document.querySelectorAll('.plot svg')[3].outerHTML") != before
    window.get("document.querySelector('.plot').dispatchEvent(new MouseEvent('dblclick'))")
    assert window.get("document.querySelector('form.zoom').elements.from.value") == "" and clean(window)


def test_rounds_are_typed_too_and_a_button_shows_all(window, single):
    opened(window, single)
    window.put("[name=from]", "100"), window.put("[name=to]", "200")
    labels = [int(label) for label in domain(window) if label.isdecimal()]
    assert labels and min(labels) >= 100 and max(labels) <= 200
    window.get("document.querySelector('form.zoom').elements.reset.click()")
    assert max(int(label) for label in domain(window) if label.isdecimal()) >= 300 and clean(window)


def test_values_are_read_by_the_arrow_keys(window, single):
    opened(window, single)
    window.get("document.querySelector('.plot').focus()")
    window.press("ArrowRight", 39), window.press("ArrowRight", 39)
    told = window.get("document.querySelector('.chart .readout').textContent")
    assert told == f"round 20: {1 / 1024:.5g}"  # D of the second row
    window.press("ArrowLeft", 37)
    assert window.get("document.querySelector('.chart .readout').textContent").startswith("round 10: 0")
    assert window.get("document.querySelectorAll('.cursor').length") == 1 and clean(window)


def test_the_slider_shows_the_frame_of_its_round(window, single):
    opened(window, single)
    of = "document.querySelector('.frames')"
    assert window.get(f"{of}.querySelector('output').textContent") == "200"
    last = window.get(f"{of}.querySelector('img').src")
    window.get(f"{of}.querySelector('input').focus()")
    window.press("ArrowLeft", 37)
    assert window.get(f"{of}.querySelector('output').textContent") == "100"
    assert window.get(f"{of}.querySelector('img').src") != last
    assert "100" in window.get(f"{of}.querySelector('img').alt")
    window.get(f"{of}.querySelector('.play').click()")
    window.until(f"{of}.querySelector('output').textContent === '200'")
    window.until(f"{of}.querySelector('.play').getAttribute('aria-pressed') === 'false'")
    assert clean(window)


def test_a_symbol_is_lit_from_its_row(window, single):
    opened(window, single)
    window.get("document.querySelector('tr[data-symbol=D]').focus()")
    assert window.get("document.querySelectorAll('.equation [data-symbol=D].lit').length") == 1 and clean(window)


def test_the_comparison_is_sorted_by_its_buttons_by_number_and_back(window, several):
    opened(window, several)
    head = window.get("[...document.querySelectorAll('#compared thead th')].map(h => h.textContent)")
    column = head.index("w2")
    cells = f"[...document.querySelectorAll('#compared tbody tr')].map(r => Number(r.cells[{column}].dataset.value))"
    button = f"document.querySelectorAll('#compared thead th')[{column}].querySelector('button')"
    window.get(f"{button}.focus()")
    window.press("Enter", 13, "\r")
    up = window.get(cells)
    assert up == sorted(up) and len(set(up)) == 6 and up[-1] == 200.5  # by number: 7.5e-06 first
    assert window.get(f"{button}.parentNode.getAttribute('aria-sort')") == "ascending"
    window.press("Enter", 13, "\r")
    assert window.get(cells) == up[::-1] and clean(window)
    assert window.get(f"{button}.parentNode.getAttribute('aria-sort')") == "descending"


def test_a_map_is_redrawn_for_other_choices_and_frames_the_best(window, several):
    opened(window, several)
    table = "[...document.querySelectorAll('.heat tr')].map(r => [...r.cells].map(c => c.textContent))"
    shown = window.get(table)
    assert shown[0] == ["metric \\ divergence", "gan", "kl", "pearson"] and [row[0] for row in shown[1:]] == [
        "mlp",
        "mlp_r1",
    ]
    assert shown[1][1:] == ["100.5", "0.0000075", "10.5"]  # mean over seeds
    assert window.get("document.querySelector('.heat .best').textContent") == "0.0000075"
    window.put("[name=x]", window.get("document.querySelector('[name=y]').value"))
    assert window.get(table)[0][1:] == ["mlp", "mlp_r1"] and clean(window)


@pytest.mark.parametrize("which", ["single", "several"])
@pytest.mark.parametrize("width", [360, 768])
def test_no_page_scrolls_sideways(window, which, width, request):
    opened(window, request.getfixturevalue(which), width, 800)
    assert window.get("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    wide = window.get("[...document.querySelectorAll('.box')].filter(b => b.scrollWidth > b.clientWidth).length")
    assert clean(window) and (wide > 0 or width > 360)  # what is wide scrolls in its own box


CONTRAST = """
(() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number), unit = c.startsWith("color(") ? 255 : 1;
    return [m[0] * unit, m[1] * unit, m[2] * unit, m.length > 3 ? m[3] : 1]; };
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const over = (a, b) => a.slice(0, 3).map((v, i) => v * a[3] + b[i] * (1 - a[3]));
  const ground = e => { const chain = []; for (let at = e; at; at = at.parentElement) chain.unshift(at);
    return chain.reduce((under, at) => over(parse(getComputedStyle(at).backgroundColor), under), [255, 255, 255]); };
  const found = [];
  const add = (e, colour) => { const under = ground(e instanceof SVGElement ? e.closest(".plot") : e);
    const [a, b] = [light(over(colour, under)), light(under)].sort((p, q) => q - p);
    found.push([(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 30), e.className.toString()]); };
  for (const e of document.querySelectorAll("main *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (own && !e.closest("svg, math, script") && e.getClientRects().length) add(e, parse(getComputedStyle(e).color));
  }
  for (const e of document.querySelectorAll(".plot svg text"))
    if (e.textContent) add(e, parse(getComputedStyle(e).fill));
  return found.sort((p, q) => p[0] - q[0]).slice(0, 5);
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["single", "several"])
def test_all_text_has_a_contrast_of_four_and_a_half(window, which, scheme, request):
    """WCAG 2.2, success criterion 1.4.3, over every element with text, those of charts and tinted cells included."""
    opened(window, request.getfixturevalue(which), scheme=scheme)
    assert window.get(CONTRAST)[0][0] >= 4.5, window.get(CONTRAST)
    ground = [int(v) for v in re.findall(r"\d+", window.get("getComputedStyle(document.body).backgroundColor"))[:3]]
    assert (max(ground) < 60) if scheme == "dark" else (min(ground) > 200)
    stroke = window.get("getComputedStyle(document.querySelector('.mark-line path')).stroke")
    assert stroke.startswith("rgb") and clean(window)


def test_paper_is_white_in_dark_too_and_has_no_controls(window, single):
    opened(window, single, scheme="dark")
    window.media("dark", "print")
    assert window.get("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert window.get("getComputedStyle(document.querySelector('form.zoom')).display") == "none"
    ink = window.get("getComputedStyle(document.querySelector('h1')).color")
    assert all(int(v) < 60 for v in re.findall(r"\d+", ink))
    window.media()


def test_every_control_has_a_name_and_is_reached_by_tab(window, several):
    opened(window, several)
    nameless = window.get(
        "[...document.querySelectorAll('button, input, select, [tabindex=\"0\"]')].filter(e => !(e.ariaLabel || "
        "e.textContent.trim() || (e.labels && e.labels.length) || e.closest('label'))).map(e => e.outerHTML)"
    )
    assert nameless == []
    seen = set()
    for _ in range(12):
        window.press("Tab", 9)
        seen.add(window.get("document.activeElement.tagName + document.activeElement.className"))
    assert {"Askip", "BUTTONsort"} <= seen and clean(window)


def test_a_live_page_takes_new_rows_and_keeps_zoom_scroll_and_slider(window, tmp_path):
    path = shown_run(tmp_path / "run", [], 0, None, rows_of(20), [0, 100, 200])
    maker = Maker([path], critic=False, live=True)
    with Server(Live(maker.content, [path])) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            window.said.clear(), window.requested.clear()
            window.media()
            window.open(server.address)
            window.put("[name=from]", "50"), window.put(".frames input", "1", "input")
            window.get("scrollTo(0, 700)")
            kept = window.get("(window.marked = document.querySelector('.plot'), scrollY)")
            write_table(path / "metrics.csv", rows_of(40))
            frame(path / "frames" / "00000300.png", 80)
            window.until("document.querySelector('.status').textContent.includes('400 of 100')")
            window.until("document.querySelector('.frames input').max === '3'")
            assert max(int(label) for label in domain(window) if label.isdecimal()) >= 300
            assert min(int(label) for label in domain(window) if label.isdecimal()) >= 50
            assert window.get("document.querySelector('form.zoom').elements.from.value") == "50"
            assert window.get("[scrollY, window.marked.isConnected]") == [kept, True]
            assert window.get("document.querySelector('.frames output').textContent") == "100" and clean(window)
        finally:
            window.get("location.href = 'about:blank'")
            server.shutdown()
            thread.join()
