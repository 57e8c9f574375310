"""Laws that every metric obeys: what it declares of its function class, of batches, and of itself between steps."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from divergences.checks.running import Laws, close, generator, named, normal, require, slope_along
from models.laws import Particles
from se_framework.equation.metric import Metric

B = 9
ROUNDING = 1e-9
"""Spacing 2e-16 times the operations of a network (1e4), with room."""


def metric_laws(metric: Metric, event_shape: tuple[int, ...] | None = None) -> Laws:
    r"""Yield name and law for every law that applies to what a metric declares.

    Args:
        metric: the object.
        event_shape: E; None where the network has an ``event_shape``.
    """
    if not isinstance(metric, Metric):
        raise TypeError(f"check_metric takes an instance of Metric, got {metric!r}: wrap the network, Metric(network)")
    event = event_shape or getattr(metric.network, "event_shape", None)
    if event is None:
        raise ValueError(f"{type(metric.network).__name__} has no event_shape: pass the shape of one example")
    subject = Subject(metric, tuple(event))
    yield from named(
        subject, shape, dtype_kept, gradient_reaches_every_parameter, forward_is_pure, settle_is_idempotent
    )
    yield from named(subject, coupling_is_declared, one_pass_is_two)
    if hasattr(metric.network, "gradient"):
        yield from named(subject, own_gradient_is_that_of_the_scores)
    if metric.function_class == "1-Lipschitz by construction":
        yield from named(subject, slopes_at_most_one)
    if metric.bounded:
        yield from named(subject, bounded_far_out)
    if metric.clip is not None:
        yield from named(subject, clipped)
    if metric.penalty is not None:
        yield from named(subject, penalty_is_differentiable)


class Subject:
    """A metric and the examples it is checked on.

    Args:
        metric: the object; every law looks at a copy.
        event: shape E of one example.
    """

    def __init__(self, metric: Metric, event: tuple[int, ...]) -> None:
        self.metric, self.event = metric, event

    def copy(self, scale: float = 0.1, dtype: torch.dtype = torch.float64, seed: int = 0) -> Metric:
        """Return a settled copy whose parameters are moved at random, as training moves them."""
        twin, source = copy.deepcopy(self.metric).double(), generator(seed)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(scale * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
        settle(twin)
        return twin.to(dtype)

    def x(self, n: int = B, seed: int = 1) -> Tensor:
        """Return n examples; letters where the network is a table."""
        scores = getattr(self.metric.network, "scores", None)
        if isinstance(scores, nn.Parameter):
            return torch.randint(len(scores), (n, 1), generator=generator(seed)).double()
        return 2 * normal((n, *self.event), seed)

    def labels(self, n: int = B) -> Tensor | None:
        """Return labels where the network reads them."""
        classes = getattr(self.metric.network, "classes", 0)
        return torch.arange(n) % classes if classes else None

    def scores(self, metric: Metric, x: Tensor) -> Tensor:
        """Return the outputs of a copy."""
        return metric(x, self.labels(len(x)))


def settle(module: nn.Module) -> None:
    """Call every part's ``settle``, as the engine does after a step of phi."""
    for part in module.modules():
        own = getattr(part, "settle", None)
        if callable(own):
            own()


def shape(subject: Subject) -> None:
    """One score, or one point of the embedding, per example; for one example as for many."""
    metric = subject.copy()
    for n in (1, B):
        metric.train(n > 1)  # batch normalisation refuses one example while it trains
        want = (n,) if metric.outputs is None else (n, metric.outputs)
        got = tuple(subject.scores(metric, subject.x(n)).shape)
        require(got == want, f"outputs of {n} examples have shape {got}, expected {want}")


def dtype_kept(subject: Subject) -> None:
    """float32 gives float32 and float64 gives float64, close to each other."""
    results = []
    for dtype in (torch.float32, torch.float64):
        out = subject.scores(subject.copy(dtype=dtype), subject.x().to(dtype))
        require(out.dtype == dtype, f"outputs of a {dtype} metric are {out.dtype}")
        results.append(out.detach().double())
    close(results[0], results[1], 1e-3 * (1 + results[1].abs().max()), "outputs in float32 against float64")


def gradient_reaches_every_parameter(subject: Subject) -> None:
    """Every parameter can learn."""
    metric = subject.copy()
    out = subject.scores(metric, subject.x(64))
    (out * normal(tuple(out.shape), 3)).sum().backward()
    for name, parameter in metric.named_parameters():
        gradient = parameter.grad
        if parameter.numel():
            require(gradient is not None and bool(gradient.any()), f"{name} has no gradient")
            require(gradient.isfinite(), f"the gradient of {name} is not finite")  # type: ignore[union-attr]


def forward_is_pure(subject: Subject) -> None:
    """Reading a metric changes neither it nor torch's seed, and reading again gives the same."""
    metric = subject.copy()
    if metric.batch_coupled:
        return  # batch normalisation counts what it sees: legality says so
    state, seed = copy.deepcopy(metric.state_dict()), torch.random.get_rng_state()
    one, other = (subject.scores(metric, subject.x()) for _ in range(2))
    require(torch.equal(one, other), "two readings of the same examples differ")
    for name, tensor in metric.state_dict().items():
        require(torch.equal(tensor, state[name]), f"reading has changed {name}: move it to settle()")
    require(torch.equal(torch.random.get_rng_state(), seed), "reading has moved torch's seed")


def settle_is_idempotent(subject: Subject) -> None:
    """What settling does, it has done: once more changes outputs by rounding only."""
    metric = subject.copy()
    metric.eval()
    once = subject.scores(metric, subject.x()).detach()
    settle(metric)
    twice = subject.scores(metric, subject.x()).detach()
    close(twice, once, 1e-6 * (1 + once.abs().max()), "outputs after settling again")


def coupling_is_declared(subject: Subject) -> None:
    """Scores depend on other examples of the batch iff the metric says so."""
    metric = subject.copy()
    x = subject.x()
    scores = subject.scores(metric, x)
    moved = torch.cat([x[:1], subject.x(B, seed=8)[1:]])
    gap = float((subject.scores(metric, moved)[0] - scores[0]).detach().abs().max())
    slack = ROUNDING * (1 + float(scores.detach().abs().max()))
    if metric.batch_coupled:
        require(gap > slack, "declared batch_coupled, but a score does not depend on the other examples")
    else:
        require(
            gap <= slack, f"a score moves by {gap:.3g} with the other examples of its batch: penalties would be wrong"
        )


def one_pass_is_two(subject: Subject) -> None:
    """Data and samples scored in one pass have the scores they have alone."""
    metric, clouds = subject.copy(), (subject.x(), subject.x(B - 1, seed=8))
    both = metric.on_both(*(Particles(x, context=subject.labels(len(x))) for x in clouds))
    for found, x in zip(both, clouds, strict=True):
        alone = subject.scores(metric, x)
        close(found, alone, ROUNDING * (1 + alone.abs().max()), "scores in one pass with others: row_wise is declared")


def own_gradient_is_that_of_the_scores(subject: Subject) -> None:
    """A network's own ``gradient`` is that of its scores, and so is what it passes on to the parameters."""
    metric, x = subject.copy(), subject.x().requires_grad_()
    (want,) = torch.autograd.grad(subject.scores(metric, x).sum(), x, create_graph=True)
    got = metric.gradient(x.detach(), subject.labels(len(x)))
    close(got, want, ROUNDING * want.abs().max(), "the network's own gradient")
    parameters = [p for p in metric.parameters() if p.numel()]
    weights = normal(tuple(want.shape), 11)
    slopes = (
        torch.autograd.grad((g.square() * weights).sum(), parameters, allow_unused=True, materialize_grads=True)
        for g in (got, want)
    )
    for a, b in zip(*slopes, strict=True):
        close(a, b, ROUNDING * (1 + b.abs().max()), "the derivative of the network's own gradient in a parameter")


def slopes_at_most_one(subject: Subject) -> None:
    """|v(x) - v(y)| <= |x - y|, near and far, wherever training may take the parameters."""
    for seed, scale in enumerate((0.1, 1.0, 3.0)):
        metric, x = subject.copy(scale, seed=seed), subject.x(200)
        for name, y in (
            ("near", x + 1e-3 * subject.x(200, seed=5)),
            ("apart", subject.x(200, seed=6)),
            ("far", 100 * x),
        ):
            with torch.no_grad():
                gap = (subject.scores(metric, x) - subject.scores(metric, y)).reshape(200, -1).norm(dim=1)
            slope = float((gap / (x - y).flatten(1).norm(dim=1)).max())
            # A constant "up to the lag of a power iteration" is at most 1.01 for shipped widths; rounding is 1e-12.
            require(
                slope <= 1.01, f"declared 1-Lipschitz by construction, but a slope between points {name} is {slope:.6g}"
            )


def bounded_far_out(subject: Subject) -> None:
    """Outputs stay where they are when examples are scaled from 1e4 to 1e8."""
    metric, x = subject.copy(), subject.x(64)
    with torch.no_grad():
        near, far = (float(subject.scores(metric, scale * x).abs().max()) for scale in (1e4, 1e8))
    require(far <= 2 * near + ROUNDING, f"declared bounded, but outputs are {near:.4g} at scale 1e4, {far:.4g} at 1e8")


def clipped(subject: Subject) -> None:
    """After settling every parameter is within the clip."""
    metric = subject.copy(scale=10.0)
    largest = max(float(p.detach().abs().max()) for p in metric.parameters())
    bound = float(metric.clip or 0.0)
    require(largest <= bound * (1 + ROUNDING), f"a parameter of size {largest:.4g} after settling, clip = {bound:g}")


def penalty_is_differentiable(subject: Subject) -> None:
    """The attached penalty is finite, and its gradient in phi is that of differences.

    A penalty of a piecewise linear network's gradient jumps where a unit turns on, and such a kink may lie within the
    step of the differences: of three networks one must agree, and where the gradient is wrong none does.
    """
    failure: AssertionError | None = None
    for seed in range(3):
        try:
            return _penalty_is_differentiable(subject, subject.copy(seed=seed))
        except AssertionError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _penalty_is_differentiable(subject: Subject, metric: Metric) -> None:
    assert metric.penalty is not None
    x, y, mix = subject.x(), subject.x(seed=2), torch.rand(B, generator=generator(3), dtype=torch.float64)
    parameters = [p for p in metric.parameters() if p.numel()]
    directions = [normal(tuple(p.shape), 20 + i) for i, p in enumerate(parameters)]

    def penalty() -> Tensor:
        return metric.penalty(lambda points: subject.scores(metric, points), x, y, mix)  # type: ignore[misc]

    value = penalty()
    require(value.isfinite() & (value >= 0), f"the penalty is {float(value.detach()):.6g}")
    slopes = torch.autograd.grad(value, parameters, allow_unused=True)
    got = sum((s * e).sum() for s, e in zip(slopes, directions, strict=True) if s is not None)
    start = [p.detach().clone() for p in parameters]

    def at(step: Tensor) -> Tensor:
        for p, origin, e in zip(parameters, start, directions, strict=True):
            p.data.copy_(origin + float(step) * e)
        with torch.enable_grad():
            return penalty().detach()

    zero, one = torch.zeros(()).double(), torch.ones(()).double()
    want = slope_along(at, zero, one, 1e-6)  # a step below the distance to the kinks of piecewise linear networks
    close(torch.as_tensor(got), want, 1e-4 * (1 + want.abs()), "gradient of the penalty in phi")
