"""Pictures of rounds: which are written, what the critic's line is, and the animation."""

from __future__ import annotations

import math

import pytest
import torch

from divergences import GAN, KL, Wasserstein1
from models import Affine, GroupSortCritic, MLPCritic, Particles
from se_framework import Dual, Metric, StandardEquation, TrainState, train
from se_framework.data import GaussianMixture, Ring8, TensorData
from se_framework.pictures.frames import animate, frame, reading
from se_framework.pictures.panels import kernel_estimate
from se_framework.pictures.plots import picture
from se_framework.runs.directory import RunDirectory


def on_a_line(divergence, network, normalised=False):
    return StandardEquation(
        model=Affine((1,), init_scale=1.0), divergence=divergence, auxiliary=Dual(normalised), metric=Metric(network)
    )


def test_frames_are_written_at_their_rounds_and_joined(tmp_path):
    state = TrainState(on_a_line(GAN(), MLPCritic((1,), width=8)))
    run = RunDirectory(tmp_path)
    train(
        state,
        GaussianMixture([0.0], 1.0),
        rounds=5,
        batch_size=16,
        log_every=0,
        picture_every=2,
        picture=frame,
        run=run,
        progress=False,
    )
    assert [f.name for f in sorted(run.frames.iterdir())] == [f"{k:08d}.png" for k in (0, 2, 4)]
    animate(run.frames, tmp_path / "frames.gif")
    from PIL import Image

    with Image.open(tmp_path / "frames.gif") as film:
        assert film.n_frames == 3
    animate(tmp_path / "none", tmp_path / "none.gif")
    assert not (tmp_path / "none.gif").exists()


@pytest.mark.parametrize("data", [Ring8(), TensorData(torch.randn(40, 3)), GaussianMixture([0.0], 1.0)], ids=repr)
def test_all_frames_have_the_axes_of_the_data(data, tmp_path):
    """Whatever the samples of a round are: else the picture jumps, and its size with it."""
    from PIL import Image

    sizes, d = set(), torch.Size(data.event_shape).numel()
    for k, stretch in enumerate(([1.0], [1.0, 60.0], [90.0])):
        samples = torch.randn(500, *data.event_shape) * torch.tensor((stretch * d)[:d])
        picture(data, samples, tmp_path / f"{k}.png", one_of_many=True)
        with Image.open(tmp_path / f"{k}.png") as image:
            sizes.add(image.size)
    assert len(sizes) == 1


def test_pictures_leave_the_trajectory_alone(tmp_path):
    ends = []
    for every in (0, 1):
        torch.manual_seed(0)
        state = TrainState(on_a_line(GAN(), MLPCritic((1,), width=8)))
        run = RunDirectory(tmp_path / str(every))
        run.path.mkdir()
        train(
            state, GaussianMixture([0.0], 1.0), rounds=3, batch_size=16, picture_every=every, picture=frame, run=run,
            progress=False,
        )  # fmt: skip
        assert len(list(run.path.glob("frames/*.png"))) == 4 * every
        ends.append(torch.cat([p.flatten() for p in state.equation.parameters()]))
    assert torch.equal(*ends)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_critics_line_is_the_log_ratio_it_reads(normalised):
    """A critic that is the exact log-ratio of N(1, 1) and N(0, 1), x - 1/2, is drawn as such under both duals."""
    equation = on_a_line(KL(), MLPCritic((1,), width=2, depth=0), normalised).double()
    with torch.no_grad():
        equation.metric.network.net[1].weight.fill_(1.0)
        equation.metric.network.net[1].bias.fill_(-0.5)
    draw = torch.Generator().manual_seed(0)
    n = 20_000
    p = Particles(torch.randn(n, 1, generator=draw, dtype=torch.float64))
    line = reading(TrainState(equation), p, p)
    x = torch.linspace(-2, 3, 11, dtype=torch.float64)[:, None]
    # Over probability q the line is shifted by log E_p e^v = 0, whose standard error is sqrt((e - 1)/n).
    allowed = 1e-12 if not normalised else 4 * math.sqrt((math.e - 1) / n)
    assert line.is_log_ratio and float((line.values(x) - (x[:, 0] - 0.5)).abs().max()) < allowed
    potential = reading(
        TrainState(on_a_line(Wasserstein1(), GroupSortCritic((1,), width=4))), p, Particles(p.x.float())
    )
    assert not potential.is_log_ratio and potential.name == "critic's f"


def test_thekernel_estimate_is_the_smoothed_density():
    """Of n normal draws with bandwidth w the expected estimate is the density of N(0, 1 + w^2)."""
    n = 50_000
    samples = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    width = 0.3 * n**-0.2
    want = torch.distributions.Normal(0.0, math.sqrt(1 + width**2)).log_prob(x).exp()
    error = (want / (2 * math.sqrt(math.pi) * n * width)).sqrt()  # of a kernel estimate, to first order
    assert bool(((kernel_estimate(samples, x) - want).abs() < 4.5 * error).all())
