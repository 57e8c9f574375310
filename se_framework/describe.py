"""The equation in words: every symbol with its object, every player with its scalar, what legality checked."""

from __future__ import annotations

from torch import nn

from se_framework.assembly import Assembly
from se_framework.legality import RULES, name_of
from se_framework.metric import Metric
from se_framework.players import Player

EQUATION = "min_theta max_phi min_q  -alpha H(q) + beta D(q, p_theta) - E_q[f_phi] + E_pd[f_phi]"


def describe(assembly: Assembly) -> str:
    """Return the text that ``dry_run=true`` prints."""
    equation, data = assembly.state.equation, assembly.data
    auxiliary, divergence = equation.auxiliary, equation.divergence
    symbols = [
        ("alpha", f"{equation.alpha:g}"),
        ("beta", f"{equation.beta:g}"),
        ("p_theta", f"{show(equation.model)}; density: {'yes' if equation.model.has_log_prob else 'no'}"),
        ("f_phi", metric_line(equation.metric)),
        ("D(q, p)", show(divergence)),
        ("q", show(auxiliary)),
        ("p_d", f"{data.name}, shape {data.event_shape}, {data.train_size or 'unlimited'} training examples"),
    ]  # fmt: skip
    lines = [EQUATION, ""] + [f"  {name:8} = {value}" for name, value in symbols]
    total = (
        "T = "
        + auxiliary.minimum_name
        + (" + E_pd f" if auxiliary.uses_metric else "  (H(q), E_q f, E_pd f: constants)")
    )
    lines += ["", f"  {total}", "", "Players, in the order in which they move"]
    lines += [f"  {player_line(player)}" for player in assembly.state.players]
    if any(player.view is not None and type(player.view) is not type(divergence) for player in assembly.state.players):
        lines.append("  The players see v through different divergences: not a saddle of one scalar.")
    lines += ["", f"Legality: {len(RULES)} rules checked ({', '.join(RULES)})"]
    lines += [f"  WARNING, allowed: {w}" for w in equation.warnings] or ["  none is broken"]
    return "\n".join(lines)


def metric_line(metric: Metric | None) -> str:
    """Return the network, its function class and its penalty."""
    if metric is None:
        return "none"
    return f"{show(metric.network)}, {metric.function_class}; penalty: {show(metric.penalty)}"


def player_line(player: Player) -> str:
    """Return one line on a player."""
    count = sum(p.numel() for p in player.parameters)
    verb = "ascends on T" if player.sign > 0 else "descends on T"
    view = "" if player.view is None else f" seen through {show(player.view)}"
    penalty = "" if player.penalty is None else f", less {show(player.penalty)}"
    steps = f"{player.steps} step{'s' if player.steps != 1 else ''} a round"
    rate = f"{type(player.optimizer).__name__} lr={player.base_lr[0]:g} ({player.decay})"
    average = "" if player.average is None else ", averaged"
    return f"{player.name:6} {verb}{view}{penalty}; {steps}, {count:,} parameters, {rate}{average}"


def show(part: object) -> str:
    """Return a part's class and what it shows of itself on one line."""
    if part is None:
        return "none"
    extra = part.extra_repr() if isinstance(part, nn.Module) else ""
    return f"{name_of(part)}({extra})"
