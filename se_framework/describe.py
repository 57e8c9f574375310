"""The equation in words: every symbol with its object, every player with its scalar, what legality checked."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from se_framework.assembly import Assembly, EnsembleAssembly
from se_framework.config.helping import EQUATION
from se_framework.ensemble.settings import values_of
from se_framework.equation.equation import StandardEquation
from se_framework.equation.legality import RULES, show
from se_framework.equation.metric import BATCH_NORMS
from se_framework.training.players import Player


def describe(assembly: Assembly) -> str:
    """Return the text that ``dry_run=true`` prints."""
    if isinstance(assembly, EnsembleAssembly):
        seeds = ", ".join(str(member.state.seed) for member in assembly.members)
        differ = "".join(f"; {key} = {column}" for key, column in values_of(assembly.config).items())
        return f"{describe(assembly.members[0])}\n\nEnsemble: {len(assembly.members)} members, seeds {seeds}{differ}"
    equation, data = assembly.state.equation, assembly.data
    config = assembly.config if assembly.course is None else assembly.course.stages[assembly.course.at]
    auxiliary, divergence, metric = equation.auxiliary, equation.divergence, equation.metric
    density = "with density" if equation.model.has_log_prob else "implicit"
    examples = "a sampler" if data.train_size is None else f"{data.train_size} training examples"
    symbols = [
        ("alpha", f"{equation.alpha:g}"),
        ("beta", f"{equation.beta:g}"),
        ("p_theta", f"{choice(config.model)}, {density}"),
        ("f_phi", "none" if metric is None else f"{choice(config.metric)}, {function_class(equation)}"),
        ("D(q, p)", choice(config.divergence)),
        ("q", show(auxiliary)),
        ("p_d", f"{choice(config.data)}: {data.name}, shape {data.event_shape}, {examples}"),
    ]
    lines = [EQUATION, ""] + [f"  {name:8} = {value}" for name, value in symbols]
    lines += ["", f"  T = {scalar_name(equation)}"]
    for name, weight, other in equation.summands():
        node = config.plus[name]
        parts = ", ".join(choice(node[key]) for key in ("divergence", "auxiliary", "metric") if node.get(key))
        lines.append(f"      + {weight:g} ({scalar_name(other)})   plus.{name}: alpha {other.alpha:g}, {parts}")
    lines += ["", "Players, in the order in which they move"]
    lines += [f"  {player_line(player, equation)}" for player in assembly.state.players]
    views = [player.view for player in assembly.state.players]
    if any(v is not None and not v.surrogate and type(v) is not type(divergence) for v in views):
        lines.append("  The players see v through different divergences: not a saddle of one scalar.")
    for name, _, other in equation.summands():
        for role in equation.roles():
            if (seen := other.seen_by(role)) is not None:
                lines.append(f"  {role.name} sees plus.{name} through {show(seen)}: not a saddle of one scalar.")
    lines += ["", *stage_lines(assembly)] if assembly.course is not None else []
    lines += ["", f"Player steps: {assembly.state.execution.describe()}"]
    lines += ["", f"Legality: {len(RULES)} rules checked ({', '.join(RULES)})"]
    lines += [f"  WARNING, {w}" for w in equation.warnings] or ["  none is broken"]
    return "\n".join(lines)


def stage_lines(assembly: Assembly) -> list[str]:
    """Return a line for every stage: its rounds, and what differs in it from the configuration."""
    assert assembly.course is not None
    ends = [stage.loop.rounds for stage in assembly.course.stages]
    lines = [f"Stages, all of them checked; stage {assembly.course.at + 1} of {len(ends)} is described above"]
    for first, last, stage in zip([0, *ends], ends, assembly.config.stages, strict=False):
        plain: Any = OmegaConf.to_container(stage, resolve=True)
        own = ", ".join(
            f"{key}: {choice(stage[key]) if isinstance(v, dict) and '_target_' in v else v}"
            for key, v in plain.items()
            if key != "rounds"
        )
        lines.append(f"  rounds {first + 1} to {last}: {own or 'as configured'}")
    return lines


def function_class(equation: StandardEquation) -> str:
    """Return what is known of the critic's output v, and what of f: a link that bends v keeps no Lipschitz constant."""
    metric, name = equation.metric, equation.auxiliary.f_name(equation.divergence)
    assert metric is not None
    if not equation.auxiliary.has_scores or metric.function_class == "unrestricted":
        return metric.function_class
    kept = "" if name.endswith(" v") or name == "v" else ", which is not held to that"
    return f"v {metric.function_class}; f = {name}{kept}"


def scalar_name(equation: StandardEquation) -> str:
    """Return the formula of one equation's scalar."""
    if equation.divergence.surrogate:
        return "E_pd a(v) - E_p b(v) for phi, E_p c(v) for theta: a surrogate, not the equation"
    return equation.auxiliary.scalar_name


def player_line(player: Player, equation: StandardEquation) -> str:
    """Return one line on a player."""
    count = sum(p.numel() for p in player.parameters)
    verb = "ascends on T" if player.role.sign > 0 else "descends on T"
    view = "" if player.view is None else f" seen through {show(player.view)}"
    penalty = "".join(f", less {show(metric.penalty)}" for metric in player.penalised.values())
    steps = f"{player.steps} step{'s' if player.steps != 1 else ''} a round{pieces(player, equation)}"
    rate = f"{type(player.optimizer).__name__} lr={player.base_lr[0]:g} ({player.decay})"
    average = "" if player.average is None else ", averaged"
    return f"{player.name:6} {verb}{view}{penalty}; {steps}, {count:,} parameters, {rate}{average}"


def pieces(player: Player, equation: StandardEquation) -> str:
    """Return into how many pieces a player cuts its batch, and what they do not share."""
    if player.pieces == 1:
        return ""
    coupled = any(isinstance(part, BATCH_NORMS) for part in equation.modules())
    coupled = coupled or any(metric.batch_coupled for metric in equation.metrics().values())
    alone = ", each with batch statistics of its own (ghost batches), so another step than that of the whole"
    return f" in {player.pieces} pieces of a batch{alone if coupled else ''}"


def choice(node: Any) -> str:
    """Return a configured choice as its class with its values."""
    values = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    if not isinstance(values, dict):
        return "none" if values is None else str(values)
    if "_target_" not in values:
        return "none"
    inside = ", ".join(f"{k!s}={choice(v) if isinstance(v, dict) else v}" for k, v in values.items() if k != "_target_")
    return f"{str(values['_target_']).rpartition('.')[2]}({inside})"
