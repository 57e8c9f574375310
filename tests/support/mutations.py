"""Thirty-eight planted errors that claims of se-verify notice: which ones, is measured and committed.

    python -m tests.support.mutations             measure the errors that benchmarks/verify/mutations.json lacks
    python -m tests.support.mutations NAME ...    measure these again

The libraries are imported once; every error is planted, and measured, in a fork of its own.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.support.planting import Mutation, Plant, altered, planted

LIST = Path(__file__).parents[2] / "benchmarks" / "verify" / "mutations.json"
MUTATIONS: list[Mutation] = []


def mutation(name: str) -> Callable[[Callable[[Plant], None]], Callable[[Plant], None]]:
    """Enter a function into the list under a name."""

    def enter(plant: Callable[[Plant], None]) -> Callable[[Plant], None]:
        MUTATIONS.append(Mutation(name, plant))
        return plant

    return enter


# -- the equation and its auxiliaries ---------------------------------------------------------------------------------


@mutation("sign of E_pd f")
def _(plant):
    def make(scalar):
        def wrong(self, data, p, *rest, **more):
            minimum, f_data = self.parts(data, p, *rest, **more)
            return minimum - f_data

        return wrong

    plant.wrap("se_framework.StandardEquation.scalar", make)


@mutation("beta forgotten in f")
def _(plant):
    plant.wrap("se_framework.Dual.f", lambda f: lambda self, v, divergence, beta: f(self, v, divergence, 1.0))


@mutation("beta forgotten in the conjugate")
def _(plant):
    plant.wrap("se_framework.Dual.minimum", lambda minimum: lambda self, problem, *rest: (
        minimum(self, problem if self.normalised else altered(problem, beta=1.0), *rest)))  # fmt: skip


@mutation("conjugate's sign over probabilities")
def _(plant):
    plant.wrap("se_framework.Dual.minimum", lambda minimum: lambda self, problem, *rest: (
        (-1 if self.normalised else 1) * minimum(self, problem, *rest)))  # fmt: skip


@mutation("critic on data in the place of samples")
def _(plant):
    plant.wrap("se_framework.Metric.on_both", lambda on_both: lambda self, data, p: on_both(self, data, data))


@mutation("samples detached from theta")
def _(plant):
    def make(draw):
        def wrong(self, *rest, **more):
            p = draw(self, *rest, **more)
            return p if p is None or p.context is not None else p.detach()

        return wrong

    plant.wrap("se_framework.StandardEquation.particles", make)
    plant.wrap("se_framework.StandardEquation.sample", make)


@mutation("view ignored")
def _(plant):
    for method in ("minimum", "parts", "scalar"):
        plant.wrap(f"se_framework.StandardEquation.{method}", lambda own: lambda self, data, p, *view, **named: (
            own(self, data, p)))  # fmt: skip


@mutation("alpha ignored in the temperature")
def _(plant):
    for method in ("minimum", "solve"):
        plant.wrap(f"se_framework.Tilted.{method}", lambda own: lambda self, problem, *rest: (
            own(self, altered(problem, alpha=1.0), *rest)))  # fmt: skip


@mutation("c of KL forgotten")
def _(plant):
    plant.set("divergences.KL.entropy_weight", 0.0)


@mutation("tau forgotten before log Z")
def _(plant):
    def make(minimum):
        def wrong(self, problem, *rest):
            tau = problem.alpha + problem.divergence.entropy_weight * problem.beta
            return minimum(self, problem, *rest) / tau

        return wrong

    plant.wrap("se_framework.Tilted.minimum", make)


@mutation("sign of log p in the tilt")
def _(plant):
    plant.wrap("se_framework.Tilted.minimum", lambda minimum: lambda self, problem, *rest: (
        minimum(self, altered(problem, p=replace(problem.p, log_prob=-problem.p.log_prob)), *rest)))  # fmt: skip


@mutation("entropy's sign on record")
def _(plant):
    def make(solve):
        def wrong(self, problem, *rest):
            found, c = solve(self, problem, *rest), problem.divergence.entropy_weight
            return altered(found, entropy=-found.entropy, divergence=found.divergence + 2 * c * found.entropy)

        return wrong

    plant.wrap("se_framework.Tilted.solve", make)


@mutation("D on record without c H")
def _(plant):
    def make(solve):
        def wrong(self, problem, *rest):
            found, c = solve(self, problem, *rest), problem.divergence.entropy_weight
            return altered(found, divergence=found.divergence + 2 * c * found.entropy)

        return wrong

    plant.wrap("se_framework.Tilted.solve", make)


# -- laws and models --------------------------------------------------------------------------------------------------


@mutation("weights not exponentiated over letters")
def _(plant):
    def make(mean):
        def wrong(self, values, *rest, **more):
            if self.log_weights is None:
                return mean(self, values, *rest, **more)
            # A mean weighs by e^w: with log(-w) in the place of w it weighs by -w.
            return mean(replace(self, log_weights=torch.log(-self.log_weights)), values, *rest, **more)

        return wrong

    plant.wrap("models.Particles.mean", make)


@mutation("log of a sum in the place of a mean")
def _(plant):
    plant.wrap("models.Particles.log_mean_exp", lambda own: lambda self, values, *rest, **more: (
        own(self, values, *rest, **more) + (math.log(len(values)) if self.log_weights is None else 0.0)))  # fmt: skip


@mutation("weights forgotten in log-mean-exp")
def _(plant):
    plant.wrap("models.Particles.log_mean_exp", lambda own: lambda self, values, *rest, **more: (
        own(replace(self, log_weights=None), values, *rest, **more)))  # fmt: skip


@mutation("softmax of the model over a wrong axis")
def _(plant):
    def make(forward):
        def wrong(self, *rest, **more):
            law = forward(self, *rest, **more)
            return type(law)(law.points, self.logits - self.logits.logsumexp(0).detach())

        return wrong

    plant.wrap("models.TabularModel.forward", make)


@mutation("log-determinant's sign")
def _(plant):
    plant.wrap("models.PushForward.log_prob", lambda log_prob: lambda self, value, *rest, **more: (
        log_prob(self, value, *rest, **more) - 2 * self.pull(value)[1]))  # fmt: skip


@mutation("log(2 pi) lost")
def _(plant):
    plant.everywhere("models.laws.standard_normal_log_prob", lambda own: lambda z, *rest: (
        own(z, *rest) + z.flatten(1).shape[1] * math.log(2) / 2))  # fmt: skip


# -- divergences ------------------------------------------------------------------------------------------------------


@mutation("KL's conjugate shifted")
def _(plant):
    plant.wrap("divergences.KL.conjugate", lambda own: lambda self, v: own(self, v) - 1)


@mutation("Pearson's link without its factor")
def _(plant):
    plant.wrap("divergences.Pearson.link", lambda own: lambda self, v: own(self, v) / 2)


@mutation("Neyman's sign in v")
def _(plant):
    plant.set("divergences.Neyman.link", lambda self, v: torch.expm1(2 * v))


@mutation("alpha's link of the next order")
def _(plant):
    plant.wrap("divergences.Alpha.link", lambda own: lambda self, v: (
        torch.expm1(self.order * v) / self.order if self.order else v))  # fmt: skip


@mutation("weighted JS with its weights exchanged")
def _(plant):
    plant.wrap("divergences.WeightedJensenShannon.conjugate", lambda own: lambda self, v: (
        own(self, v) * (self.weight / (1 - self.weight))))  # fmt: skip


@mutation("total variation without its half")
def _(plant):
    plant.wrap("divergences.TotalVariation.link", lambda own: lambda self, v: 2 * own(self, v))


def of_row(plant: Plant, name: str, **losses: Any) -> None:
    """Replace losses of a surrogate's row."""
    row = plant.find("divergences.SURROGATES")[name]
    plant.patch.setitem(plant.find("divergences.SURROGATES"), name, altered(row, **losses))


@mutation("hinge with the margin's sign exchanged")
def _(plant):
    of_row(plant, "hinge", model=lambda v, of: torch.relu(1 - v))


@mutation("least squares: theta aims at the fake label")
def _(plant):
    of_row(plant, "least_squares", generator=lambda v, of: v.square() / 2)


@mutation("raised link's sign")
def _(plant):
    of_row(plant, "raised_link", generator=lambda v, of: of.link(v))


def kernel_terms(divergence: Any, q: Any, p: Any) -> tuple[torch.Tensor, ...]:
    """Return the three means of a kernel distance with V-statistics', and the diagonals of the first two."""
    weights = [
        torch.full((len(c.x),), 1 / len(c.x), dtype=c.x.dtype) if c.log_weights is None else c.log_weights.exp()
        for c in (q, p)
    ]
    x, y = q.x.flatten(1), p.x.flatten(1)

    def mean(s, t, a, b):
        return a @ divergence.kernel((s[:, None] - t).square().sum(-1)) @ b

    zero = divergence.kernel(x.new_zeros(()))
    within = [mean(c, c, w, w) for c, w in zip((x, y), weights, strict=True)]
    diagonal = [zero * w.square().sum() for w in weights]
    return *within, mean(x, y, *weights), *diagonal


@mutation("kernel distance with one cross term")
def _(plant):
    plant.wrap("divergences.kernels.KernelDistance.primal", lambda primal: lambda self, q, law, p: (
        primal(self, q, law, p) + kernel_terms(self, q, p)[2]))  # fmt: skip


@mutation("U-statistic with the V-statistic's weight")
def _(plant):
    def make(primal):
        def wrong(self, q, law, p):
            if not self.unbiased:
                return primal(self, q, law, p)
            x, y, between, own_x, own_y = kernel_terms(self, q, p)
            return x - own_x + y - own_y - 2 * between

        return wrong

    plant.wrap("divergences.kernels.KernelDistance.primal", make)


@mutation("gradient penalty's norm over one axis")
def _(plant):
    class First:
        """A metric that shows its slope along the first axis alone."""

        def __init__(self, metric):
            self.metric = metric

        def __call__(self, x):
            return self.metric(torch.cat([x.flatten(1)[:, :1], x.flatten(1)[:, 1:].detach()], 1).reshape(x.shape))

        def gradient(self, x):
            slope = torch.func.grad(lambda y: self.metric(y).sum())(x).flatten(1)
            return (slope * (torch.arange(slope.shape[1]) == 0)).reshape(x.shape)

    plant.wrap("se_framework.GradientPenalty.penalty", lambda own: lambda self, metric, *rest: (
        own(self, First(metric), *rest)))  # fmt: skip


@mutation("gradient penalty between the wrong ends")
def _(plant):
    plant.wrap("se_framework.GradientPenalty.penalty", lambda own: lambda self, metric, data, model, *rest: (
        own(self, metric, model, data, *rest)))  # fmt: skip


@mutation("one-sided penalty on both sides")
def _(plant):
    def make(own):
        def wrong(self, *rest):
            both = copy.copy(self)
            both.sides = "two"
            return own(both, *rest)

        return wrong

    plant.wrap("se_framework.GradientPenalty.penalty", make)


@mutation("R1 without its half")
def _(plant):
    plant.wrap("se_framework.R1.penalty", lambda own: lambda self, *rest: 2 * own(self, *rest))


@mutation("lazy penalty without its factor")
def _(plant):
    plant.wrap("se_framework.equation.penalties.Penalty.forward", lambda own: lambda self, *rest: (
        own(self, *rest) / self.every))  # fmt: skip


@mutation("c-transform adds the cost")
def _(plant):
    # The best place of every particle is looked for among all pairs, of which the costs are a matrix.
    for name in ("Wasserstein1", "Sinkhorn", "OptimalTransport"):
        plant.wrap(f"divergences.{name}.ground_cost", lambda own: lambda self, squared: (
            own(self, squared) * (-1 if squared.dim() == 2 else 1)))  # fmt: skip


@mutation("Renyi's bound with its factor inverted")
def _(plant):
    def make(bound):
        def wrong(self, v_data, v, data=None, p=None):
            right, b = self.order * v, self.order - 1
            right = torch.logsumexp(right, 0) - math.log(len(v)) if p is None else p.log_mean_exp(right)
            whole = bound(self, v_data, v, data, p)
            return (whole + right) * (b / self.order) ** 2 - right if b else whole

        return wrong

    plant.wrap("divergences.Renyi.variational_bound", make)


@mutation("cross-entropy's sign")
def _(plant):
    plant.wrap("divergences.CrossEntropy.primal", lambda own: lambda self, *rest: -own(self, *rest))


# -- measuring --------------------------------------------------------------------------------------------------------


def failing(names: set[str] | None) -> list[str]:
    """Return the claims that fail; of all, or of those named."""
    from se_framework.commands.verify import SUITES
    from se_framework.verify import check, collect

    modules = [importlib.import_module(name) for name in (*SUITES["equivalences"], *SUITES["dynamics"])]
    claims = [c for module in modules for c in collect(module) if c.name != "final_radii"]
    return [c.name for c in claims if (names is None or c.name in names) and not check(c).holds]


def caught_by(this: Mutation, names: set[str] | None = None) -> list[str]:
    """Return the claims that an error fails, measured in a fork.

    Raises:
        LookupError: what it replaces is gone.
    """
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            try:
                with planted(this):
                    Path(file.name).write_text(json.dumps(failing(names)))
            except BaseException as error:  # noqa: BLE001  the parent shall say it
                Path(file.name).write_text(json.dumps({"error": str(error)}))
            os._exit(0)
        os.waitpid(child, 0)
        found = json.loads(Path(file.name).read_text())
    if isinstance(found, dict):
        raise LookupError(found["error"])
    return found


def main(arguments: list[str]) -> None:
    """Measure the mutations named, or all that the list lacks, and write the list."""
    torch.set_num_threads(1)
    failing(set())  # imports everything before the forks
    known = json.loads(LIST.read_text()) if LIST.exists() else {}
    for this in MUTATIONS:
        if this.name in arguments or (not arguments and this.name not in known):
            known[this.name] = caught_by(this)
            print(f"{this.name}: {', '.join(known[this.name]) or 'NOT CAUGHT'}", flush=True)
            rows = {m.name: known[m.name] for m in MUTATIONS if m.name in known}
            LIST.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
