"""The rules of legality, one function each: it looks at what the parts declare, and says what is wrong.

A rule names what must change, not what to choose: a part, or a key's value. Which choices there are the configuration
knows, see :mod:`se_framework.config.mending`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator

from se_framework.equation.choice import Choice, Problem, Violation, name_of
from se_framework.equation.roles import NAMES


def works_through(choice: Choice) -> Iterator[Problem]:
    """An auxiliary works through something of D: its dual, a primal, a ground cost, ...; D must have it."""
    divergence, need, q = choice.divergence, choice.auxiliary.works_through, name_of(choice.auxiliary)
    have = None if need is None else getattr(divergence, need, None)  # a weight of zero is there
    if need is None or not (have is None or have is False):
        return
    if divergence.absent:
        yield Problem(f"auxiliary {q} needs a divergence D, got none", ("divergence",))
        return
    known = "is known by its dual only" if divergence.has_dual else "has neither that nor a dual"
    does, parts = USES.get(need, (f"works through {need} of D, and {{d}} has none", ()))
    if need == "primal_needs" and choice.metric is None:  # nothing learns yet: a dual would
        parts = ("metric", "auxiliary", "divergence")
    yield Problem(f"auxiliary {q} {does.format(d=name_of(divergence), known=known)}", parts)


USES: dict[str, tuple[str, tuple[str, ...]]] = {
    "has_dual": (
        "works through the dual of D, and {d} has none", ("metric", "auxiliary", "model", "divergence"),
    ),
    "primal_needs": ("evaluates D(p_d, p_theta) on samples, and {d} {known}", ("metric", "divergence")),
    "has_paired_dual": ("compares pairs of an example and a particle, and {d} is no mean over those", ("divergence",)),
    "has_ground_cost": ("moves p at a ground cost, and {d} has none", ("divergence",)),
    "entropy_weight": ("has no closed form of q under {d}", ("divergence",)),
}  # fmt: skip
"""For each declaration of D that an auxiliary may work through: what it does with it, and what may change."""


def normaliser(choice: Choice) -> Iterator[Problem]:
    """A dual over q of mass one is not every divergence's."""
    if choice.auxiliary.needs_mass_one and not choice.divergence.has_normalised_dual:
        q, d = name_of(choice.auxiliary), name_of(choice.divergence)
        yield Problem(f"auxiliary {q} takes q of mass one, {d} has no such dual", ("auxiliary",))


def metric_missing(choice: Choice) -> Iterator[Problem]:
    """An auxiliary that uses f_phi needs a metric."""
    if choice.auxiliary.uses_metric and choice.metric is None:
        yield Problem(f"auxiliary {name_of(choice.auxiliary)} needs a metric f_phi, got none", ("metric",))


def metric_unused(choice: Choice) -> Iterator[Problem]:
    """An auxiliary without f_phi gives a metric nothing to learn from."""
    if not choice.auxiliary.uses_metric and choice.metric is not None:
        q = name_of(choice.auxiliary)
        yield Problem(f"auxiliary {q} has no f_phi: the metric would never learn", ("metric",))


def embedding(choice: Choice) -> Iterator[Problem]:
    """An embedding serves an auxiliary that embeds, which needs one and a D of its points; nothing else does."""
    divergence, auxiliary, metric = choice.divergence, choice.auxiliary, choice.metric
    if auxiliary.embeds and divergence.primal_needs == "log_prob":
        yield Problem(f"{name_of(divergence)} needs a density, and embedded points have none", ("divergence",))
    if metric is None or not auxiliary.uses_metric:
        return
    q, network = name_of(auxiliary), name_of(metric.network)
    if not auxiliary.embeds and metric.outputs is not None:
        yield Problem(f"auxiliary {q} needs one score per example, and {network} returns an embedding", ("metric",))
    if auxiliary.embeds and metric.outputs is None:
        yield Problem(f"auxiliary {q} needs an embedding, and {network} returns one score per example", ("metric",))
    elif auxiliary.embeds and metric.penalty is not None:
        penalty = f"{name_of(metric.penalty)} takes the gradient of one score"
        yield Problem(f"{penalty}, and {network} returns an embedding", values=("metric.penalty=null",))


def embedding_bound(choice: Choice) -> Iterator[Problem]:
    """D of embedded points has no maximum over phi unless D or the embedding is bounded or Lipschitz."""
    divergence, metric = choice.divergence, choice.metric
    if not choice.auxiliary.embeds or metric is None or metric.outputs is None or metric.penalty is not None:
        return
    if not (divergence.bounded_in_scale or metric.bounded or metric.function_class != "unrestricted"):
        grows = f"{name_of(divergence)} grows with the scale of its points"
        yield Problem(f"{grows}, and {name_of(metric.network)} is neither Lipschitz nor bounded", ("metric",))


def lipschitz(choice: Choice) -> Iterator[Problem]:
    """W1's dual holds for 1-Lipschitz metrics only."""
    if _scores(choice) and choice.metric.function_class == "unrestricted" and choice.auxiliary.keeps_function_class:
        for view in (choice.divergence, *choice.views.values()):
            if view.needs_lipschitz:
                yield Problem(f"{name_of(view)} needs a 1-Lipschitz metric, got an unrestricted one", ("metric",))


def batch_coupled(choice: Choice) -> Iterator[Problem]:
    """A per-example penalty or a c-transform needs uncoupled examples."""
    if not _scores(choice) or not choice.metric.batch_coupled:
        return
    penalty, couples = choice.metric.penalty, f"{name_of(choice.metric.network)} couples the examples"
    couples += f" by {choice.metric.coupled_by}"
    if choice.auxiliary.moves_points:
        takes = f"auxiliary {name_of(choice.auxiliary)} takes v at points of its own"
        yield Problem(f"{takes}, and {couples}", ("metric",))
    elif penalty is not None and penalty.per_example:
        takes = f"{name_of(penalty)} takes each example's gradient"
        yield Problem(f"{takes}, and {couples}", ("metric",))


def penalty(choice: Choice) -> Iterator[Problem]:
    """A penalty at the model's samples needs an auxiliary that draws some."""
    if not _scores(choice) or choice.metric.penalty is None or not choice.metric.penalty.needs_samples:
        return
    if not choice.auxiliary.needs_samples(choice.divergence):
        acts = f"{name_of(choice.metric.penalty)} acts at the model's samples"
        yield Problem(f"{acts}, and auxiliary {name_of(choice.auxiliary)} draws none", values=("metric.penalty=null",))


def _scores(choice: Choice) -> bool:
    """Whether there is a metric that learns, and gives one score per example."""
    return choice.metric is not None and choice.auxiliary.uses_metric and choice.metric.outputs is None


def pairs(choice: Choice) -> Iterator[Problem]:
    """A margin is kept where points are pairs and p is the product of their margins, x by x by a D that is a mean."""
    q, d = choice.auxiliary, choice.divergence
    if q.keeps_margin and not (choice.pairs and d.additive_dual and d.critic_reads != "potential"):
        lacks = f"{name_of(d)} is no mean over x" if choice.pairs else "p is no product of the margins of pairs of data"
        yield Problem(f"auxiliary {name_of(q)} takes q(y | x) for every x, and {lacks}", ("auxiliary",))


def alpha(choice: Choice) -> Iterator[Problem]:
    """A weight of the entropy above zero belongs to an auxiliary that needs it."""
    q, needs = name_of(choice.auxiliary), choice.auxiliary.needs_alpha
    if needs is False and choice.alpha > 0:
        is_at_zero = f"auxiliary {q} is the minimum over q at alpha = 0"
        yield Problem(f"{is_at_zero}, got alpha = {choice.alpha:g}", values=("equation.alpha=0",))
    if needs is True and not choice.alpha > 0:
        yield Problem(f"auxiliary {q} needs alpha > 0, got {choice.alpha:g}", values=("equation.alpha=0.5",))


def beta(choice: Choice) -> Iterator[Problem]:
    """Without D the model has no gradient."""
    if not choice.beta > 0 and not choice.divergence.absent:
        removes = f"beta = {choice.beta:g} removes {name_of(choice.divergence)}"
        yield Problem(f"{removes} and with it the model's gradient", values=("equation.beta=1",))


def density(choice: Choice) -> Iterator[Problem]:
    """A term needs the model's log-density."""
    if choice.auxiliary.needs_density(choice.divergence) and not choice.model.has_log_prob:
        by_d = choice.divergence.primal_needs == "log_prob"
        needs = name_of(choice.divergence) if by_d else f"auxiliary {name_of(choice.auxiliary)}"
        yield Problem(f"{needs} needs the model's density, and {name_of(choice.model)} has none", ("model",))


def dimension(choice: Choice) -> Iterator[Problem]:
    """The data has as many dimensions as the model needs, and no more than the primal of D is for."""
    divergence, embeds, smallest = choice.divergence, choice.auxiliary.embeds, choice.model.smallest_dimension
    if choice.dimension is not None and choice.dimension < smallest:
        needs = f"{name_of(choice.model)} needs data of at least {smallest} dimensions"
        yield Problem(f"{needs}, got {choice.dimension}", ("model",))
    embedded = choice.metric.outputs if embeds and choice.metric is not None else None
    coordinates, most = embedded if embeds else choice.dimension, divergence.largest_dimension
    if _primal_here(choice) and most is not None and coordinates is not None and coordinates > most:
        points = "embedded points" if embeds else "data"
        limit = f"{name_of(divergence)} is for {points} of at most {most} dimension"
        yield Problem(f"{limit}, got {coordinates}", ("metric" if embeds else "divergence",))


def extra(choice: Choice) -> Iterator[Problem]:
    """A primal that an extra package computes needs the package."""
    if _primal_here(choice) and choice.divergence.primal_extra is not None:
        package, name = choice.divergence.primal_extra
        if importlib.util.find_spec(package) is None:
            absent = f"{name_of(choice.divergence)} is computed by the package {package}, which is not installed"
            yield Problem(f"{absent} (pip install 'se-framework[{name}]')", ("divergence",))


def _primal_here(choice: Choice) -> bool:
    return bool(choice.auxiliary.evaluates_primal and choice.divergence.primal_needs is not None)


def context(choice: Choice) -> Iterator[Problem]:
    """Data with labels needs a model, a metric and a D that read them."""
    if not choice.classes:
        return
    deaf = [] if choice.model.has_context else [name_of(choice.model)]
    if choice.auxiliary.uses_metric and choice.metric is not None and not choice.metric.has_context:
        deaf.append(name_of(choice.metric.network))
    if not choice.auxiliary.reads_context(choice.divergence):
        clouds = choice.auxiliary.evaluates_primal or choice.auxiliary.moves_points
        deaf.append(name_of(choice.divergence) if clouds else f"auxiliary {name_of(choice.auxiliary)}")
    if deaf:
        yield Problem(f"the data has labels, and {' and '.join(deaf)} cannot read any", values=("data.labels=false",))


def view(choice: Choice) -> Iterator[Problem]:
    """A player's view needs the dual, and a divergence that has one."""
    q, need = name_of(choice.auxiliary), str(choice.auxiliary.works_through)
    for name, d in choice.views.items():
        reads, null = f"a player's view {name_of(d)}", (f"players.{name}.view=null",)
        if not choice.auxiliary.takes_views or not all(getattr(each, need, None) for each in (d, choice.divergence)):
            has_none = f"which auxiliary {q} or the view or D itself does not have"
            yield Problem(f"{reads} reads the critic through a dual, {has_none}", values=null)
        elif choice.auxiliary.needs_alpha:
            only = "shares the optimal critic of D at alpha = 0 only"
            yield Problem(f"{reads} {only}, and auxiliary {q} is for alpha > 0", values=null)


IMPLIED = {"log_ratio": ("log_ratio", "sign"), "sign": ("sign",), "potential": ("potential",)}
"""For what the critic's output stands for: what can be read off it."""


def view_reads(choice: Choice) -> Iterator[Problem]:
    """All who look at the critic must find there what they read: phi learns it, D and the other views read it off."""
    own, q, need = choice.divergence, choice.auxiliary, str(choice.auxiliary.works_through)
    views = {k: d for k, d in choice.views.items() if q.takes_views and getattr(d, need, 0) and getattr(own, need, 0)}
    learner = next((k for k in views if NAMES.get(k) == "the metric"), None)
    learns = views.get(learner, own) if learner else own
    for name, d in views.items():
        reader, learnt = (own, d) if name == learner else (d, learns)
        same, null = type(reader) is type(learnt), (f"players.{name}.view=null",)
        stands, reads = learnt.critic_reads or name_of(learnt), reader.critic_reads or name_of(reader)
        text = f"a player's view {name_of(d)} does not go with {name_of(own)}: "
        if reads not in IMPLIED.get(stands, (stands,)):
            there = f"the critic's output stands for its {stands.replace('_', '-')} under {name_of(learnt)}"
            yield Problem(f"{text}{there}, and {name_of(reader)} reads a {reads.replace('_', '-')}", (), null, (name,))
        elif learnt.additive_dual != reader.additive_dual:
            free = learnt if not learnt.additive_dual else reader
            yield Problem(f"{text}{name_of(free)} is no mean over examples and leaves v a constant", (), null, (name,))
        elif not (q.free_mass or same):
            yield Problem(f"{text}over q of mass one their optimal critics differ", (), null, (name,))


RULES: dict[str, Callable[[Choice], Iterable[Problem]]] = {
    rule.__name__: rule
    for rule in (
        works_through, normaliser, metric_missing, embedding, embedding_bound, metric_unused, lipschitz, batch_coupled,
        penalty, pairs, alpha, beta, density, dimension, extra, context, view, view_reads,
    )
}  # fmt: skip
"""Every rule of an equation by its name, in the order in which they speak."""


def violations(choice: Choice) -> Iterator[Violation]:
    """Yield every broken rule."""
    for name, rule in RULES.items():
        for problem in rule(choice):
            yield Violation(name, problem)
