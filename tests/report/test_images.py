"""Pictures in a page: reduced until they fit, refused where they are none, counted where they find no room."""

import base64
import io

import pytest
from PIL import Image

from se_framework.comparison.report import single
from se_framework.comparison.report.content import LEAST, Content
from se_framework.comparison.report.images import data_uri, spread
from se_framework.comparison.report.page import page
from se_framework.comparison.report.reading import read_run
from se_framework.reading import UnreadableError
from tests.support.reported import Page, shown_run, without_vega


def test_a_picture_is_reduced_until_it_fits(tmp_path):
    noise = Image.effect_noise((600, 300), 80)
    noise.save(tmp_path / "noise.png")
    uri = data_uri(tmp_path / "noise.png", 30_000, 820)
    assert len(uri) <= 30_100
    shown = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert shown.width < 600 and abs(shown.width / shown.height - 2) < 0.02


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    for name in ("a.png", "b.png", "absent.png"):
        with pytest.raises(UnreadableError):
            data_uri(tmp_path / name, 10_000, 100)


def test_of_many_frames_the_first_and_the_last_stay():
    items = [(t, None) for t in range(101)]
    assert [t for t, _ in spread(items, 5)] == [0, 25, 50, 75, 100]
    assert spread(items, 1) == [(100, None)] and spread(items, 200) == items


def test_more_pictures_than_a_page_can_hold_are_counted(tmp_path):
    content = Content("run", room=5 * LEAST)
    single.fill(content, read_run(shown_run(tmp_path / "run", frames=range(0, 2000, 100))))
    (frames,) = content.frames.values()
    assert content.left_out == 20 - len(frames) > 0 and [frames[0]["round"], frames[-1]["round"]] == [0, 1900]
    with without_vega():
        assert f"{content.left_out} pictures are left out" in Page(page(content)).text
