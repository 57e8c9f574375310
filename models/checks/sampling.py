"""Laws of particles and samples: shapes, types, what they are determined by, what gradients and labels reach."""

from __future__ import annotations

from typing import Any

import torch

from models.base import Model
from models.checks.subject import (
    ROUNDING,
    N,
    labels_of,
    law_of,
    moved,
    near,
    noise_of,
    own_source,
    particles_of,
    require,
)


def shapes(model: Model) -> None:
    r"""Particles and samples have shape (N, \*E), weights, densities shape (N,), and weights have mass one."""
    twin = moved(model)
    law, event = law_of(twin), tuple(model.event_shape)
    particles = law.particles(noise_of(twin))
    n = len(particles.x)
    require(tuple(law.event_shape) == event, f"the law has event shape {tuple(law.event_shape)}, the model {event}")
    require(tuple(particles.x.shape) == (n, *event), f"particles have shape {tuple(particles.x.shape)}, events {event}")
    for name, part in (("log_weights", particles.log_weights), ("log_prob", particles.log_prob)):
        require(part is None or part.shape == (n,), f"{name} is not of shape ({n},)")
    if particles.log_weights is not None:
        mass = float(particles.log_weights.detach().exp().sum())
        require(abs(mass - 1) < ROUNDING, f"the particles' weights have mass {mass:.8g}")
    sample = law.sample((N,), generator=own_source())
    require(tuple(sample.shape) == (N, *event), f"sample((N,)) has shape {tuple(sample.shape)}, expected {(N, *event)}")
    require(law.has_rsample == model.has_rsample, f"has_rsample: law {law.has_rsample}, model {model.has_rsample}")
    if model.has_log_prob:
        require(law.log_prob(sample).shape == (N,), f"log_prob has shape {tuple(law.log_prob(sample).shape)}, not (N,)")
    else:
        try:
            law.log_prob(sample)
        except NotImplementedError:
            return
        raise AssertionError("has_log_prob is False, but the law's log_prob returns numbers: declare it")


def dtype_kept(model: Model) -> None:
    """A float32 model has float32 particles, samples and densities; float64 likewise. Whole numbers stay whole."""
    for dtype in (torch.float32, torch.float64):
        twin = moved(model, dtype)
        law, particles = law_of(twin), particles_of(twin)
        drawn = law.sample((N,), generator=own_source())
        for name, part in {**vars(particles), "a sample": drawn}.items():
            if part is not None and (part.is_floating_point() or not model.discrete):
                require(part.dtype == dtype, f"{name} of a {dtype} model is {part.dtype}")


def determined_by_noise(model: Model) -> None:
    """The same noise gives the same particles, the same generator the same draw, and nobody's seed is moved."""
    twin = moved(model)
    law, noise = law_of(twin), noise_of(twin)
    state = torch.random.get_rng_state()
    require(torch.equal(law.particles(noise).x, law.particles(noise).x), "particles of the same noise differ")
    require(torch.equal(noise_of(twin), noise), "noise of the same generator differs")
    draws = [law.sample((N,), generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    require(torch.equal(*draws), "samples of the same generator differ")
    require(torch.equal(torch.random.get_rng_state(), state), "a draw with a generator of its own moved torch's seed")


def determined_by_draws(model: Model) -> None:
    """All randomness of particles is in the draws, a stream for each purpose; the particles carry their labels."""
    twin = moved(model)
    labels, state = labels_of(twin, N), torch.random.get_rng_state()
    one, same = (twin.draws(N, lambda purpose: torch.Generator().manual_seed(len(purpose)), labels) for _ in range(2))
    require(
        one.keys() == same.keys() and all(torch.equal(t, same[k]) for k, t in one.items()), "draws of streams differ"
    )
    p, again = twin.particles(one, labels), twin.particles(same, labels)
    require(torch.equal(p.x, again.x), "particles of the same draws differ")
    require(torch.equal(torch.random.get_rng_state(), state), "draws or particles moved torch's seed")
    if labels is not None:
        require(p.context is not None and torch.equal(p.context, labels), "the particles do not carry their labels")


def sample_needs_no_graph(model: Model) -> None:
    """``sample`` carries no gradient."""
    require(not law_of(moved(model)).sample((N,), generator=own_source()).requires_grad, "sample() has a graph")


def rsample_is_sample(model: Model) -> None:
    """With the same generator ``rsample`` draws the points of ``sample``, with a graph."""
    law: Any = law_of(moved(model))
    one, other = (draw((N,), generator=torch.Generator().manual_seed(5)) for draw in (law.rsample, law.sample))
    near(one, other, "rsample and sample of the same generator")
    require(one.requires_grad, "rsample has no graph")


def gradient_reaches_every_parameter(model: Model) -> None:
    """Particles, their weights and densities together depend on every parameter."""
    twin = moved(model)
    if not list(twin.parameters()):  # a law that is given and not learnt
        return
    particles, source = particles_of(twin, 64), torch.Generator().manual_seed(3)
    parts = [t.flatten() for t in (particles.x, particles.log_weights, particles.log_prob) if t is not None]
    weight = torch.randn(sum(len(t) for t in parts), generator=source, dtype=torch.float64)
    (torch.cat(parts) * weight).sum().backward()
    for name, parameter in twin.named_parameters():
        if parameter.numel():
            gradient = parameter.grad
            require(gradient is not None and bool(gradient.any()), f"{name} has no gradient")
            assert gradient is not None
            require(gradient.isfinite(), f"the gradient of {name} is not finite")


def context_is_read(model: Model) -> None:
    """A conditional model needs labels and depends on them; another refuses them."""
    twin = moved(model)
    wrong = None if model.classes else torch.zeros(N, dtype=torch.long)
    try:
        twin(wrong)
    except ValueError:
        pass
    else:
        given = "no labels" if wrong is None else "labels"
        raise AssertionError(f"classes = {model.classes}, but a call with {given} is taken")
    if model.classes:
        require(model.has_context, "classes > 0, but has_context is False")
    if model.classes > 1:
        noise = noise_of(twin)
        same, other = (twin(torch.full((N,), k)).particles(noise).x for k in (0, 1))
        require(not torch.equal(same, other), "particles do not depend on the label")


def law_keeps_its_parameters(model: Model) -> None:
    """A law made under ``functional_call`` keeps the tensors it was called with after the call has returned."""
    twin = moved(model)
    other = {name: t.detach() + 0.05 for name, t in twin.named_parameters()}
    labels = labels_of(twin, N)
    law = torch.func.functional_call(twin, other, () if labels is None else (labels,))
    noise = noise_of(twin)
    late = law.particles(noise)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(other[name])
    want = law_of(twin).particles(noise)
    near(late.x, want.x, "particles of a law made by functional_call, and of the model with those parameters")
    if late.log_weights is not None and want.log_weights is not None:
        near(late.log_weights, want.log_weights, "weights of a law made by functional_call, and of the model")
