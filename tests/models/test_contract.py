"""What every model, critic and embedding offers besides its law: draws by purpose, schedules, particles row by row."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from models import Critic, Embedding, Model, Particles, PushForward, Weighted
from models.generators import Affine, MLPGenerator
from models.mixtures import GaussianMixture
from models.tabular import TabularModel

N = 6


def full(log_weights: torch.Tensor | None = None) -> Particles:
    """Particles with every field, each row told by its number."""
    n = torch.arange(float(N))
    return Particles(
        n[:, None].requires_grad_(),
        log_weights,
        -n,
        context=torch.arange(N),
        latent=(n[:, None, None] + torch.zeros(2, 3)),
    )


def streams(seen: list[str]):
    """Return a stream of each purpose, which notes for what it was asked."""

    def stream(purpose: str) -> torch.Generator:
        seen.append(purpose)
        return torch.Generator().manual_seed(3)

    return stream


# --- particles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [torch.tensor([4, 0, 0]), slice(1, None, 2)], ids=["numbers", "slice"])
def test_rows_take_the_same_of_every_field(index):
    p = full()
    some, want = p.rows(index), torch.arange(float(N))[index]
    assert {field.name for field in fields(p) if getattr(p, field.name) is None} == {"log_weights"}
    assert torch.equal(some.x, want[:, None]) and torch.equal(some.log_prob, -want)
    assert torch.equal(some.context, want.long()) and torch.equal(some.latent, want[:, None, None].expand(-1, 2, 3))
    assert some.log_weights is None and some.x.requires_grad
    bare = Particles(p.x).rows(index)
    assert all(getattr(bare, field.name) is None for field in fields(bare) if field.name != "x")


def test_rows_of_weighted_particles_are_refused():
    with pytest.raises(ValueError, match="weighted particles are not a sample"):
        full(torch.full((N,), 1 / N).log()).rows(slice(2))


def test_no_field_is_lost_without_a_graph_or_in_float64():
    p = full(torch.full((N,), 1 / N).log())
    for changed in (p.detach(), p.double()):
        for field in fields(p):
            assert torch.equal(getattr(changed, field.name).double(), getattr(p, field.name).double()), field.name
    assert not p.detach().x.requires_grad
    double = p.double()
    assert double.log_prob.dtype == double.log_weights.dtype == torch.float64
    assert double.latent.dtype == double.x.dtype == torch.float32


# --- laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Affine((2,)), GaussianMixture((2,), components=3), TabularModel()], ids=type)
def test_the_joint_density_of_a_law_without_latents_is_its_density(model):
    law = model()
    p = law.particles(law.noise(N, torch.Generator().manual_seed(0)))
    assert torch.equal(law.log_joint(p), law.log_prob(p.x))


def test_an_implicit_law_has_no_joint_density():
    law = MLPGenerator((2,), width=4)()
    with pytest.raises(NotImplementedError, match="implicit"):
        law.log_joint(law.particles(law.noise(N)))


def test_log_joint_follows_a_density_written_by_a_subclass():
    class Shifted(Weighted):
        def log_prob(self, value):
            return super().log_prob(value) + 1

    law = Shifted(torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.5]).log())
    assert torch.equal(law.log_joint(law.particles(law.noise(2))), law.log_weights + 1)


# --- models ----------------------------------------------------------------------------------------------------------


def test_draws_are_named_by_purpose_and_make_the_particles_of_the_law():
    model, seen = Affine((2,)), []
    draws = model.draws(N, streams(seen))
    assert seen == list(draws) == ["noise"] and draws["noise"].shape == (N, 2)
    assert torch.equal(draws["noise"], model.draws(N, streams([]))["noise"])
    p, want = model.particles(draws), model().particles(draws["noise"])
    assert torch.equal(p.x, want.x) and torch.equal(p.log_prob, want.log_prob) and p.context is None


def test_particles_of_a_conditional_model_carry_their_labels():
    model, labels = MLPGenerator((2,), width=4, classes=3), torch.arange(N) % 3
    draws = model.draws(N, streams([]), labels)
    p = model.particles(draws, labels)
    assert torch.equal(p.context, labels) and torch.equal(p.x, model(labels).particles(draws["noise"]).x)
    with pytest.raises(ValueError, match="conditional"):
        model.particles(draws)


class Grown(Model):
    """A law of the unit normal's scaled copies: its scale is known from the first batch, and grows with the samples."""

    has_log_prob = False
    has_rsample = True

    def __init__(self) -> None:
        super().__init__((1,))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("stretch", torch.ones(()))

    def forward(self, context=None):
        scale = self.scale * self.stretch
        return PushForward(lambda z: scale * z, (1,), (1,), like=self.scale)

    def prepare(self, batch):
        self.scale.copy_(batch.x.std())

    def at(self, samples):
        self.stretch.fill_(1 + samples)


def test_a_model_may_read_the_first_batch_and_follow_a_schedule():
    model, batch = Grown(), Particles(torch.tensor([[-1.0], [1.0]]))
    model.prepare(batch)
    model.at(2)
    draws = model.draws(N, streams([]))
    assert torch.equal(model.particles(draws).x, batch.x.std() * 3 * draws["noise"])


class Line(Critic):
    def score(self, x, context=None):
        return x.flatten(1).sum(1)


class Same(Embedding):
    def embed(self, x):
        return x.flatten(1)


def test_parts_are_unmoved_by_schedules_they_do_not_have():
    model, batch = Affine((2,)), Particles(torch.randn(4, 2))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    model.prepare(batch)
    for part in (model, Line((2,)), Same((2,), 2)):
        part.at(0)
        part.at(10**9)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert Model.discrete is False
