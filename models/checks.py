"""Laws that every model obeys: its laws' shapes, particles, samples, densities and gradients, on any object.

``check_model(model)`` raises with the name of every law that fails and its numbers. It looks at a copy in float64 whose
parameters are moved by a tenth of a standard normal number each: at the start some networks are constant.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.base import Law, Model
from models.laws import Particles, standard_normal_log_prob

N = 12
ROUNDING = 1e-8
"""Spacing 2e-16 times the operations (1e3) times the conditioning of maps with slopes up to 1e3, with room."""


def model_laws(model: Model) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield name and law, a callable without arguments, for every law that applies to what the model declares."""
    if not isinstance(model, Model):
        raise TypeError(f"check_model takes an instance of Model, got {model!r}: build one first")
    found: list[Callable[[Model], None]] = [
        shapes, dtype_kept, determined_by_noise, sample_needs_no_graph, gradient_reaches_every_parameter,
        context_is_read, law_keeps_its_parameters,
    ]  # fmt: skip
    if model.has_rsample:
        found.append(rsample_is_sample)
    if model.has_log_prob:
        found += [density_of_particles, samples_follow_the_density, density_by_the_jacobian, inverse_inverts]
        if model.dimension <= 2:
            found.append(density_integrates_to_one)
    for law in found:
        yield law.__name__, partial(law, model)


def check_model(model: Model) -> None:
    """Run every law that applies.

    Args:
        model: the object; it is copied, and left as it is.

    Raises:
        AssertionError: a law fails; the message names all that do, with the numbers.
        TypeError: no model.
    """
    failures, count = [], 0
    for name, law in model_laws(model):
        count += 1
        try:
            law()
        except Exception as error:  # a law that cannot be evaluated is not kept
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            failures.append(f"{name}: {kind}{error}")
    if failures:
        raise AssertionError("\n  ".join([f"{type(model).__name__} breaks {len(failures)} of {count} laws", *failures]))


def require(holds: bool | Tensor, message: str) -> None:
    """Fail with a message unless the condition holds (everywhere)."""
    if not bool(torch.as_tensor(holds).all()):
        raise AssertionError(message)


def near(got: Tensor, want: Tensor, what: str, rounding: float = ROUNDING) -> None:
    """Fail unless two results agree relative to their size."""
    got, want = got.detach(), want.detach()
    gap = float((got - want).abs().max()) if got.numel() else 0.0
    size = 1 + float(want.abs().max()) if want.numel() else 1.0
    require(gap <= rounding * size, f"{what} differ by {gap:.3g}, values are of size {size:.3g}")


def moved(model: Model, dtype: torch.dtype = torch.float64) -> Model:
    """Return a copy in the given type with moved parameters."""
    twin, source = copy.deepcopy(model).to(torch.float64), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            noise = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.device))
    for part in twin.modules():
        settle = getattr(part, "settle", None)
        if callable(settle):
            settle()
    return twin.to(dtype)


def _source() -> torch.Generator:
    """Return random numbers of its own, so that a check moves nobody's seed."""
    return torch.Generator().manual_seed(4)


def _labels(model: Model, n: int) -> Tensor | None:
    return torch.arange(n) % model.classes if model.classes else None


def _law(model: Model, n: int = N) -> Law:
    return model(_labels(model, n))


def _noise(model: Model, n: int = N, seed: int = 1) -> Tensor:
    return _law(model, n).noise(n, torch.Generator().manual_seed(seed))


def _particles(model: Model, n: int = N) -> Particles:
    return _law(model, n).particles(_noise(model, n))


def _is_continuous(model: Model) -> bool:
    """Whether particles sit at random points: a finite alphabet's stay where they are."""
    twin = moved(model)
    law = _law(twin)
    return not torch.equal(law.particles(_noise(twin, seed=1)).x, law.particles(_noise(twin, seed=2)).x)


def shapes(model: Model) -> None:
    r"""Particles and samples have shape (N, \*E), weights, densities shape (N,), and weights have mass one."""
    twin = moved(model)
    law, event = _law(twin), tuple(model.event_shape)
    particles = law.particles(_noise(twin))
    n = len(particles.x)
    require(tuple(law.event_shape) == event, f"the law has event shape {tuple(law.event_shape)}, the model {event}")
    require(tuple(particles.x.shape) == (n, *event), f"particles have shape {tuple(particles.x.shape)}, events {event}")
    for name, part in (("log_weights", particles.log_weights), ("log_prob", particles.log_prob)):
        require(part is None or part.shape == (n,), f"{name} is not of shape ({n},)")
    if particles.log_weights is not None:
        mass = float(particles.log_weights.detach().exp().sum())
        require(abs(mass - 1) < ROUNDING, f"the particles' weights have mass {mass:.8g}")
    sample = law.sample((N,), generator=_source())
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
    """A float32 model has float32 particles, samples and densities; float64 likewise."""
    for dtype in (torch.float32, torch.float64):
        twin = moved(model, dtype)
        law, particles = _law(twin), _particles(twin)
        for name, part in vars(particles).items():
            require(part is None or part.dtype == dtype, f"{name} of a {dtype} model is {getattr(part, 'dtype', None)}")
        drawn = law.sample((N,), generator=_source()).dtype
        require(drawn == dtype, f"samples of a {dtype} model are {drawn}")


def determined_by_noise(model: Model) -> None:
    """The same noise gives the same particles, the same generator the same draw, and nobody's seed is moved."""
    twin = moved(model)
    law, noise = _law(twin), _noise(twin)
    state = torch.random.get_rng_state()
    require(torch.equal(law.particles(noise).x, law.particles(noise).x), "particles of the same noise differ")
    require(torch.equal(_noise(twin), noise), "noise of the same generator differs")
    draws = [law.sample((N,), generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    require(torch.equal(*draws), "samples of the same generator differ")
    require(torch.equal(torch.random.get_rng_state(), state), "a draw with a generator of its own moved torch's seed")


def sample_needs_no_graph(model: Model) -> None:
    """``sample`` carries no gradient."""
    require(not _law(moved(model)).sample((N,), generator=_source()).requires_grad, "sample() has a graph")


def rsample_is_sample(model: Model) -> None:
    """With the same generator ``rsample`` draws the points of ``sample``, with a graph."""
    law: Any = _law(moved(model))
    one, other = (draw((N,), generator=torch.Generator().manual_seed(5)) for draw in (law.rsample, law.sample))
    near(one, other, "rsample and sample of the same generator")
    require(one.requires_grad, "rsample has no graph")


def gradient_reaches_every_parameter(model: Model) -> None:
    """Particles, their weights and densities together depend on every parameter."""
    twin = moved(model)
    particles, source = _particles(twin, 64), torch.Generator().manual_seed(3)
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
        noise = _noise(twin)
        same, other = (twin(torch.full((N,), k)).particles(noise).x for k in (0, 1))
        require(not torch.equal(same, other), "particles do not depend on the label")


def law_keeps_its_parameters(model: Model) -> None:
    """A law made under ``functional_call`` keeps the tensors it was called with after the call has returned."""
    twin = moved(model)
    other = {name: t.detach() + 0.05 for name, t in twin.named_parameters()}
    labels = _labels(twin, N)
    law = torch.func.functional_call(twin, other, () if labels is None else (labels,))
    noise = _noise(twin)
    late = law.particles(noise)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(other[name])
    want = _law(twin).particles(noise)
    near(late.x, want.x, "particles of a law made by functional_call, and of the model with those parameters")
    if late.log_weights is not None and want.log_weights is not None:
        near(late.log_weights, want.log_weights, "weights of a law made by functional_call, and of the model")


# -- densities --------------------------------------------------------------------------------------------------------


def density_of_particles(model: Model) -> None:
    """The log-density that particles carry is that of the law at their points."""
    twin = moved(model)
    particles = _particles(twin)
    require(particles.log_prob is not None, "has_log_prob, but the particles carry none")
    assert particles.log_prob is not None
    near(particles.log_prob, _law(twin).log_prob(particles.x), "the particles' log_prob and the law's")


def density_by_the_jacobian(model: Model) -> None:
    """Log p(x) = log N(z) - log |det dx/dz|, the determinant by automatic differentiation."""
    twin = moved(model)
    law: Any = _law(twin, 1)
    z = _noise(twin, 1)
    if z.numel() != model.dimension or model.dimension > 32 or _particles(twin).log_weights is not None:
        return  # no square Jacobian: a mixture, an alphabet
    for seed in range(3):
        z = _noise(twin, 1, seed)

        def push(z: Tensor) -> Tensor:
            return law.particles(z[None]).x.flatten()

        jacobian = torch.func.jacrev(push)(z[0]).reshape(model.dimension, -1)
        want = standard_normal_log_prob(z) - torch.linalg.slogdet(jacobian).logabsdet
        near(law.log_prob(law.particles(z).x), want, "log_prob and the change of variables by the Jacobian")


def inverse_inverts(model: Model) -> None:
    """Where the law has ``pull``, it takes particles back to their noise."""
    twin = moved(model)
    law: Any = _law(twin)
    if getattr(law, "pull", None) is not None:
        noise = _noise(twin)
        near(law.pull(law.particles(noise).x)[0], noise, "pull(push(z)) and z", 1e-6)


def density_integrates_to_one(model: Model) -> None:
    """The density has mass one on the plane or the line: trapezoids in x = m + s sinh(t), to 1e-2 (kinks included)."""
    twin = moved(model)
    if not _is_continuous(model):
        return  # a finite alphabet: its weights have mass one
    n = 4001 if model.dimension == 1 else 321
    reach = math.asinh(40.0)
    sample = twin(_labels(twin, 512)).sample((512,), generator=_source()).flatten(1)
    middle, unit = sample.median(0).values, sample.std(0).clamp(min=1e-3) / 2
    t = torch.linspace(-reach, reach, n, dtype=torch.float64)
    axes = [(m + s * torch.sinh(t), s * torch.cosh(t) * (t[1] - t[0])) for m, s in zip(middle, unit, strict=True)]
    x = torch.cartesian_prod(*(a for a, _ in axes)).reshape(-1, model.dimension)
    w = torch.cartesian_prod(*(b for _, b in axes)).reshape(-1, model.dimension).prod(1)
    labels = torch.zeros(len(x), dtype=torch.long) if model.classes else None
    with torch.no_grad():
        mass = float((twin(labels).log_prob(x.unflatten(1, model.event_shape)).exp() * w).sum())
    require(abs(mass - 1) < 1e-2, f"the density has mass {mass:.6g}")


def samples_follow_the_density(model: Model) -> None:
    """E_p log p is the same over samples as over particles: within 5 standard errors (false alarm 1e-6)."""
    twin = moved(model)
    n = 2000
    with torch.no_grad():
        law = _law(twin, n)
        drawn = law.log_prob(law.sample((n,), generator=torch.Generator().manual_seed(7)))
        particles = _particles(twin, n)
        assert particles.log_prob is not None
        carried = particles.log_prob
        weights = torch.full_like(carried, 1 / len(carried))
        if particles.log_weights is not None:
            weights = particles.log_weights.exp()
        mean = (weights * carried).sum()
        spread = drawn.var() / n + (weights.square() * (carried - mean).square()).sum() * float(_is_continuous(model))
    gap, error = float((drawn.mean() - mean).abs()), float(spread.sqrt())
    found = f"{float(drawn.mean()):.6g} over samples, {float(mean):.6g} over particles"
    require(gap <= 5 * error + ROUNDING, f"E log p is {found}, standard error {error:.2g}")
