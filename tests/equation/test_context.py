"""Class labels through data, model and metric: joint laws of points and labels."""

from __future__ import annotations

import pytest
import torch

from divergences import GAN, KL, CrossEntropy
from models import MLPCritic, MLPGenerator, Particles
from se_framework import R1, Auxiliary, Dual, Metric, Solution, StandardEquation, TrainState, train
from se_framework.data import Sampler
from se_framework.errors import ConfigError, IncompatibleError
from se_framework.randomness import stream_seed
from se_framework.training import sampling
from se_framework.training.step import play_round

DEFAULT_DTYPE = torch.float64


class Labelled(Sampler):
    """Two classes at -2 and +2 on the line, the first three times as frequent."""

    name, event_shape, classes = "labelled", (1,), 2

    def draw(self, n, generator):
        """Return points by their labels."""
        label = (torch.rand(n, generator=generator, dtype=torch.float64) < 0.25).long()
        x = (4.0 * label - 2)[:, None] + 0.3 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        return Particles(x, context=label)


def test_the_scalar_is_that_of_the_joint_law():
    model, critic = MLPGenerator((1,), width=8, classes=2), MLPCritic((1,), width=8, classes=2)
    equation = StandardEquation(model=model, divergence=KL(), auxiliary=Dual(), metric=Metric(critic))
    labels, x = torch.tensor([0, 1, 1, 0]), torch.randn(4, 1)
    noise = model(labels).noise(4, torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(labels, 2).double()
    fake = model.net(torch.cat([noise, one_hot], 1))
    v, v_data = (critic.net(torch.cat([t, one_hot], 1)).squeeze(1) for t in (fake, x))
    want = (1 + v_data).mean() - v.exp().mean()
    assert equation(x, noise, labels).item() == pytest.approx(want.item(), abs=1e-14)


def test_a_conditional_game_learns_each_class_by_its_label():
    """After training, the model's mean given each label is that class's; the marginal game could not tell labels."""
    data = Labelled()
    model, critic = MLPGenerator((1,), width=32, classes=2, latent_dim=2), MLPCritic((1,), width=32, classes=2)
    equation = StandardEquation(model=model, divergence=GAN(), auxiliary=Dual(), metric=Metric(critic, R1(0.1)))
    state = train(TrainState(equation), data, rounds=600, batch_size=128, log_every=0, progress=False)
    for label in (0, 1):
        x = state.equation.model(torch.full((2000,), label)).sample((2000,), torch.Generator().manual_seed(1))
        assert abs(float(x.mean()) - (4 * label - 2)) < 1.0  # a quarter of the distance between the classes


def test_labels_are_refused_where_they_cannot_be_read():
    conditional, plain = MLPGenerator((1,), classes=2), MLPGenerator((1,))
    with pytest.raises(
        ValueError, match=r"MLPGenerator is conditional: it needs one label in 0\.\.1 per example, got none"
    ):
        conditional()
    with pytest.raises(ValueError, match="MLPGenerator is not conditional, got labels; build it with classes=K"):
        plain(torch.zeros(3, dtype=torch.long))
    with pytest.raises(
        ValueError, match=r"MLPCritic needs whole-number labels of shape \(N,\), got torch.float64 \(3,\)"
    ):
        MLPCritic((1,), classes=2)(torch.zeros(3, 1), torch.zeros(3))


def test_an_assembly_samples_by_label_and_scores_a_conditional_flow():
    from se_framework import compose
    from se_framework.evaluation.evaluate import evaluate

    torch.set_default_dtype(torch.float32)
    short = ["loop.rounds=3", "loop.batch_size=32", "loop.log_every=1", "progress=false", "device=cpu"]
    assembly = compose("vanilla_gan", short, data=Labelled())
    assembly.train()
    assert assembly.sample(5, label=1).shape == (5, 1) and assembly.sample(7).shape == (7, 1)
    assert "held_out_value" in evaluate(assembly, n=100, names=("held_out_value",))
    with pytest.raises(ConfigError, match=r"label=2 is no class of labelled, which has 0\.\.1"):
        assembly.sample(5, label=2)
    with pytest.raises(IncompatibleError, match="the data has labels, and Affine and MLPCritic|and Affine cannot read"):
        compose("vanilla_gan", [*short, "model=affine"], data=Labelled())
    with pytest.raises(ConfigError, match="label=0 is no class of ring8, which has none: train with data.labels=true"):
        compose("vanilla_gan", short).sample(5, label=0)


def test_labels_of_blocks_follow_each_other_as_in_the_data(monkeypatch):
    """The label of sample i is that of example i, however samples are cut into blocks."""

    class Echo:
        """A law whose points are their labels."""

        dimension, classes = 1, 2

        def __call__(self, labels):
            self.labels = labels
            return self

        def sample(self, shape, generator):
            """Return the labels."""
            return self.labels.double()[:, None]

        def modules(self):
            """Have none."""
            return iter(())

        parameters = modules

    data = Labelled()
    want = data.batch(0, 20, stream_seed(3, 0, "labels"), "cpu").context
    for block in (4, 32):
        monkeypatch.setattr(sampling, "BLOCK", block)
        drawn = torch.cat([*sampling.blocks(Echo(), data, 20, 3, None, torch.device("cpu"))])
        assert torch.equal(drawn[:, 0].long(), want)


def test_particles_keep_their_labels():
    labels = torch.tensor([1, 0])
    assert torch.equal(Particles(torch.zeros(2, 1), context=labels).detach().context, labels)
    assert torch.equal(Particles(torch.zeros(2, 1), context=labels).double().context, labels)
    assert CrossEntropy().primal_needs == "log_prob"


class Follows(Auxiliary):
    """It carries the particles and labels of the step: E |x - carried|^2 is zero if they moved by the same draws."""

    uses_metric = False

    def __init__(self):
        super().__init__()
        self.register_buffer("x", torch.zeros(6, 1))
        self.register_buffer("labels", torch.full((6,), -1))

    def advance(self, problem, role):
        self.x.copy_(problem.p.x)
        self.labels.copy_(problem.p.context)

    def minimum(self, problem, role=None):
        return problem.p.mean((problem.p.x - self.x).square().sum(1)) + (self.labels != problem.data.context).sum()

    def solve(self, problem):
        return Solution(self.minimum(problem), None, None, None)


def test_what_is_carried_moves_by_particles_with_the_labels_of_the_step():
    equation = StandardEquation(model=MLPGenerator((1,), width=4, classes=2), auxiliary=Follows())
    data, state = Labelled(), TrainState(equation)
    for _ in range(2):
        (row,) = play_round(state, data, 6, 2).values()
        assert row["theta_objective"] < 1e-28 and row["theta_gradient"] < 1e-14  # roundings at most
    assert torch.equal(equation.auxiliary.labels, data.batch(6, 6, 0).context)
