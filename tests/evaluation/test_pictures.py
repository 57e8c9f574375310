"""Pictures: they are drawn, whatever is not finite in them, and pixels lie where they should."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from se_framework.data import Digits, GaussianMixture1d, Moons, TensorData
from se_framework.errors import RunDirectoryError
from se_framework.pictures.plots import curves, image_grid, picture

F64 = torch.float64


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_png(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) < 150_000


@pytest.fixture
def no_pyplot(monkeypatch):
    # None makes an import of pyplot fail.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)


def test_pictures(tmp_path, no_pyplot):
    file = tmp_path / "picture.png"
    line, plane = GaussianMixture1d(), Moons()
    picture(line, line.held_out(5_000, 1).x, file, model_log_prob=line.log_prob, note="a warning")
    check_png(file)
    x = plane.held_out(5_000, 1).x
    x[0], x[1, 0] = 1e9, math.nan
    picture(plane, x, file, title="moons")
    check_png(file)
    for shape in [(1,), (5,), (3, 4, 4)]:
        rows = torch.rand((80, *shape), generator=draw(0))
        data = TensorData(rows, standardize=True)
        picture(data, rows, file)
        check_png(file)
        picture(data, torch.full_like(rows, math.nan), file)
        check_png(file)
    data = Digits()
    picture(data, data.to_user(data.train), file)
    check_png(file)


def test_image_grid_places_pixels():
    images = torch.arange(2 * 6, dtype=F64).view(2, 6)
    grid = image_grid(images, (2, 3), 0.0, 11.0)
    assert grid.shape == (8 * 3 + 1, 8 * 4 + 1, 3)
    assert grid[1:3, 1:4, 0].flatten().tolist() == pytest.approx([i / 11 for i in range(6)])
    assert grid[1:3, 5:8, 2].flatten().tolist() == pytest.approx([i / 11 for i in range(6, 12)])
    assert (grid[0] == 1).all() and (grid[:, 4] == 1).all() and (grid[4:] == 1).all()
    colour = image_grid(torch.tensor([[0.0, 0.5, 1.0]]), (3, 1, 1), 0.0, 1.0)
    assert colour[1, 1].tolist() == [0, 0.5, 1]


def test_curves(tmp_path, no_pyplot):
    table, file = tmp_path / "metrics.csv", tmp_path / "curves.png"
    lines = ["round,seconds,phase,L,w2,huge"]
    for i in range(40):
        lines.append(f"{i},{i / 9},train,{'nan' if i % 7 == 3 else i * 0.1},{'' if i % 10 else i},{10.0**i}")
    lines.append("40,4")  # cut short by a crash
    table.write_text("\n".join(lines))
    curves(table, file, note="a warning")
    check_png(file)
    for content in ("round,L\n", "", "round,L\n0,nan\n1,inf\n"):
        table.write_text(content)
        curves(table, file)
        check_png(file)
    table.write_text("step,L\n0,1\n")
    with pytest.raises(RunDirectoryError, match="no column 'round'"):
        curves(table, file)
    with pytest.raises(RunDirectoryError, match="cannot be read .* train first"):
        curves(tmp_path / "missing.csv", file)
