r"""The critic on a page, where all is known: data N(m, 1), model N(0, 1), and a metric that is the log-ratio.

Then :math:`\log p_d/p = m\cdot x - |m|^2/2`, its slope is m everywhere, q's weights have mean one and, of n samples,
the effective size :math:`n\,(E w)^2/E w^2 = n\,e^{-|m|^2}`.
"""

import math

import pytest
import torch
from torch import nn

from models import Affine
from se_framework.assembly import assembly_of
from se_framework.comparison.report.content import Content
from se_framework.comparison.report.critic import POINTS, Critic, critic_of, look
from se_framework.data.sampler import Sampler
from se_framework.equation.metric import Metric
from tests.support.composing import compose, composed
from tests.support.oracles import z_score
from tests.support.reported import shown_run

SHIFT, SCALE, LOC = 0.75, 3.0, -2.0
DIGITS = 1e-5
"""Of a number with six significant digits, twice its rounding."""


class Normal(Sampler):
    """N(m, I) in model space; in the user's units loc + scale x."""

    has_log_prob = True

    def __init__(self, d: int) -> None:
        super().__init__()
        self.name, self.event_shape, self.loc, self.scale = "normal", (d,), LOC, SCALE
        self.mean = torch.full((d,), SHIFT, dtype=torch.float64)

    def draw(self, n, generator):
        return (torch.randn(n, *self.event_shape, generator=generator, dtype=torch.float64) + self.mean).float()

    def log_prob(self, x):
        z = (x.double() - LOC) / SCALE - self.mean
        return -0.5 * z.square().sum(1) - z.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(SCALE))


class Ratio(nn.Module):
    """m.x - |m|^2/2, times a factor."""

    def __init__(self, d: int, factor: float = 1.0) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.full((d,), SHIFT))
        self.factor = factor

    def forward(self, x):
        return self.factor * (x @ self.m - 0.5 * self.m.square().sum())


def known(d, factor=1.0, *more):
    """Return the objects whose critic is the log-ratio times a factor."""
    config = composed("fgan", ["divergence=kl", "device=cpu", "model=affine", *more])
    return assembly_of(config, Normal(d), metric=Metric(Ratio(d, factor)), model=Affine((d,), init_scale=1.0))


@pytest.fixture(scope="module", params=[1, 2])
def looks(request):
    return request.param, look(known(request.param))


def charts(looks):
    return {title: (kind, data) for kind, title, data, _, _ in looks.charts}


def test_the_critics_log_ratio_is_the_true_one_where_it_is(looks):
    d, found = looks
    if d == 1:
        own, true = charts(found)["critic's log p_d/p"][1]["line"]
        assert (own["s"], true["s"]) == ("critic's log p_d/p", "true log p_d/p") and own["x"] == true["x"]
        values, x = torch.tensor([own["y"], true["y"]]).double(), torch.tensor(own["x"]).double()
    else:
        (kind, own), (_, true) = charts(found)["Critic's log p_d/p"], charts(found)["True log p_d/p"]
        values = torch.tensor([own["cells"][0]["v"], true["cells"][0]["v"]]).double()
        assert kind == "plane-signed" and own["cells"][0]["x"] == true["cells"][0]["x"]
        sides = [torch.tensor(own["cells"][0][s]).double() for s in ("x", "x2", "y", "y2")]
        x = torch.stack([(sides[0] + sides[1]) / 2, (sides[2] + sides[3]) / 2], 1)
    z = (x.view(len(x), -1) - LOC) / SCALE
    expected = (SHIFT * z.sum(1) - d * SHIFT**2 / 2).clamp(-6, 6)
    # The network and the model's density are float32: eight roundings of numbers below 20, and six digits printed.
    allowed = 8 * 20 * torch.finfo(torch.float32).eps + 6 * DIGITS
    assert (values - expected).abs().max() <= allowed


def test_the_field_is_the_slope_in_the_units_of_the_data(looks):
    d, found = looks
    assert dict(map(tuple, found.rows))["mean slope of f at samples"] == f"{SHIFT * math.sqrt(d) / SCALE:.5g}"
    assert dict(map(tuple, found.rows))["steepest slope of f found (at most its Lipschitz constant)"] == (
        f"{SHIFT * math.sqrt(d) / SCALE:.5g}"
    )
    if d == 1:
        (line,) = charts(found)["Slope of f"][1]["line"]
        assert line["y"] == [pytest.approx(SHIFT / SCALE, rel=DIGITS)] * len(line["x"])
    else:
        (field,) = charts(found)["Critic's log p_d/p"][1]["arrows"]
        shafts = len(field["x"]) // 3
        steps = [(field["x2"][k] - field["x"][k], field["y2"][k] - field["y"][k]) for k in range(shafts)]
        assert shafts > 50 and all(a > 0 and a == pytest.approx(b, rel=1e-3) for a, b in steps)


def test_weights_have_mass_one_and_the_effective_size_of_a_shifted_gaussian(looks):
    d, found = looks
    rows, square = dict(map(tuple, found.rows)), d * SHIFT**2
    (_, data) = charts(found)["q's weights"]
    assert sum(data["bars"][0]["y"]) == pytest.approx(1, abs=40 * DIGITS)
    # w = dN(m,1)/dN(0,1): E w = 1, E w^2 = e^{m^2}, E w^4 = e^{6 m^2}.
    bound = z_score(2) / math.sqrt(POINTS)
    assert float(rows["mean weight: the mass of q"]) == pytest.approx(1, abs=bound * math.sqrt(math.exp(square) - 1))
    size = float(rows["effective sample size of q's weights"].split()[0]) / POINTS
    # The log of n ESS is 2 log mean(w) - log mean(w^2); its error is at most the sum of both parts' relative errors.
    spread = 2 * math.sqrt(math.exp(square) - 1) + math.sqrt(math.exp(6 * square - 2 * square) - 1)
    assert abs(math.log(size) + square) <= bound * spread


def test_both_landscapes_have_the_same_corners_those_of_their_cells():
    (_, _, own, _, first), (_, _, _, _, second) = look(known(2)).charts[:2]
    cells = own["cells"][0]
    assert {k: first[k] for k in ("left", "right", "low", "high")} == {
        k: second[k] for k in ("left", "right", "low", "high")
    }
    assert (first["left"], first["right"], first["low"], first["high"]) == (
        min(cells["x"]), max(cells["x2"]), min(cells["y"]), max(cells["y2"]))  # fmt: skip
    assert first["reach"] == pytest.approx(max(map(abs, cells["v"])), rel=DIGITS)


def test_a_critic_of_half_the_size_is_seen_as_such():
    (own, true) = charts(look(known(1, factor=0.5)))["critic's log p_d/p"][1]["line"]
    a, b = torch.tensor([own["y"], true["y"]]).double()
    inside = b.abs() < 6
    assert (a - b / 2)[inside].abs().max() <= 1e-3


def test_a_potential_is_drawn_as_f_and_has_no_weights():
    found = look(known(2, 1.0, "divergence=wasserstein1", "allow=[lipschitz]"))
    assert set(charts(found)) == {"Critic's f"} and charts(found)["Critic's f"][0] == "plane"
    assert not any("weight" in row[0] for row in found.rows)


def test_what_has_no_critic_says_why():
    found = look(compose("mle_flow", ["data=ring8", "device=cpu"]))
    assert found.charts == [] and "no metric" in found.absent[0]
    assert "no values to draw" in look(compose("mmd_gan", ["data=ring8", "device=cpu"])).absent[0]


def test_data_of_many_coordinates_has_weights_and_slopes_but_no_landscape():
    found = look(known(3))
    assert "3 coordinates" in found.absent[0] and set(charts(found)) == {"q's weights"}
    assert any("steepest" in row[0] for row in found.rows)


def test_looking_leaves_modes_and_torchs_generators_as_they_were():
    assembly = known(1)
    assembly.state.equation.train()
    state = torch.random.get_rng_state()
    Critic(assembly)
    look(assembly)
    assert assembly.state.equation.training and torch.equal(torch.random.get_rng_state(), state)


def test_a_run_whose_parts_may_not_be_built_has_a_sentence_in_their_place(tmp_path):
    path = shown_run(tmp_path / "run")
    config = (path / "config.yaml").read_text().replace("models.MLPCritic", "strange.Net")
    (path / "config.yaml").write_text(config)
    found = critic_of(path)
    assert "strange" in found.absent[0] and "trust" in found.absent[0]
    html = found.on(Content("run"))
    assert html.startswith('<p class="absent">Not shown: ')
