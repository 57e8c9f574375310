"""The best of n as cells, sentences and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from se_framework.comparison.cells import ALWAYS, LITTLE, SETTING, Column
from se_framework.comparison.grouping import ONLY, cell, label
from se_framework.errors import printable

if TYPE_CHECKING:
    from se_framework.comparison.best_of import BestOf, Search

APART = 1.25
"""Ratio of seconds per trial from which budgets are said to differ: two runs of one command differ by less."""
ASSUMED = (
    "mean over all searches of n of its trials, chosen by validation, +- the spread of one search (no interval): "
    "unbiased where trials are independent draws (hydra.sweeper.sampler of random search); of an adaptive sampler "
    "only the last column, all trials, is what it says"
)


def columns_of(found: BestOf) -> list[Column]:
    """Return the columns of the table of searches."""
    rows = found.objectives
    made = [Column("data", tuple(cell(row.task) for row in rows), False, SETTING)] if len(found.tasks) > 1 else []
    made += [Column(cell(key), tuple(cell(row.settings[key]) for row in rows), False, SETTING) for key in found.columns]
    for n in shown(found):
        head = f"best of {n}" if n != found.n else f"{cell(found.score)}, best of {n}"
        made.append(Column(head, tuple(_figure(row, n) for row in rows), worth=ALWAYS if n == found.n else 4))
    made.append(Column("trials", tuple(_trials(row) for row in rows), False))
    made.append(Column("rounds", tuple(_range(row) for row in rows), worth=6))
    if any(_seconds(row) is not None for row in rows):
        head = "CPU s/trial" if found.clock == "processor" else "wall s/trial"
        spent = (_seconds(row) for row in rows)
        made.append(Column(head, tuple("-" if s is None else f"{s:.3g}" for s in spent), worth=7))
    made.append(Column("chosen", tuple(_chosen(row) for row in rows), False, LITTLE))
    return made


def shown(found: BestOf) -> list[int]:
    """Return the n of a table: powers of two, and the one at which objectives are compared."""
    most = max(len(row.trials) for row in found.objectives)
    return sorted({2**k for k in range(most.bit_length()) if 2**k <= found.n} | {found.n})


def _figure(row: Search, n: int) -> str:
    at = row.at(n)
    if at is None or at.mean is None or at.sd is None:
        return "-"
    return f"{at.mean:.4g} +- {at.sd:.2g}"


def _trials(row: Search) -> str:
    lost = sum(own.validation is None for own in row.trials)
    return f"{len(row.trials)}, {lost} lost" if lost else str(len(row.trials))


def _range(row: Search) -> str:
    known = [own.rounds for own in row.trials if own.rounds is not None and own.status == "finished"]
    if not known:
        return "-"
    return str(known[0]) if min(known) == max(known) else f"{min(known)} to {max(known)}"


def _seconds(row: Search) -> float | None:
    """Return the mean seconds of a trial."""
    known = [own.seconds for own in row.trials if own.seconds is not None]
    return sum(known) / len(known) if known else None


def _chosen(row: Search) -> str:
    return "-" if row.chosen is None else label(row.chosen.settings, row.chosen.settings) or "the only one"


def sentence_of(found: BestOf) -> str:
    """Return which objective is best at n: a sentence for each task."""
    told = []
    for task in found.tasks:
        rows = [row for row in found.objectives if row.task == task]
        where = f"{task}: " if task else ""
        known = [row for row in rows if row.at(found.n) is not None and row.loss_at(found.n) < float("inf")]
        if not known:
            told.append(f"{where}no objective has a best of {found.n}.")
            continue
        best = f"{_name(known[0])} ({_figure(known[0], found.n)})"
        if len(rows) == 1:
            told.append(f"{where}there is one objective only, so nothing is compared: {best}.")
            continue
        others = "; ".join(f"{_name(row)} {_figure(row, found.n)}" for row in known[1:3])
        more = f"; {len(known) - 3} more" if len(known) > 3 else ""
        dead = f"; {len(rows) - len(known)} without a value" if len(rows) > len(known) else ""
        told.append(
            f"{where}at {found.n} trials each, chosen by validation, {best} has the best expected {found.score}"
            f"{f', then {others}{more}' if others else ''}{dead}."
        )
    return " ".join([*told, "Whether that is sure says se-compare of the chosen ones, trained anew with more seeds."])


def _name(row: Search) -> str:
    return "it" if row.label == ONLY else row.label


def notes_of(found: BestOf) -> list[str]:
    """Return what else is to be known: budgets that differ, trials that were lost, what is assumed."""
    unit = f" in {cell(found.unit)}" if found.unit else ""
    told = [f"{cell(found.score)}{unit}, {found.better} is better: {ASSUMED}"]
    for task in found.tasks:
        rows = [row for row in found.objectives if row.task == task]
        told += [f"{f'{task}: ' if task else ''}{said}" for said in (*_budgets(rows, found.n), *_lost(rows, found.n))]
    return told


def _budgets(rows: Sequence[Search], n: int) -> list[str]:
    """Return in which ways budgets differ between objectives."""
    found = []
    for what, told in (
        ("trials", {_name(row): str(len(row.trials)) for row in rows}),
        ("rounds of a trial", {_name(row): _range(row) for row in rows}),
        ("seeds of a trial", {_name(row): _seeds(row) for row in rows}),
    ):
        if len(set(told.values())) > 1:
            tail = f": compared at {n}, whatever more some had" if what == "trials" else ": they are not equal searches"
            found.append(f"budgets differ in {what} ({_listed(told)}){tail}")
    seconds = {_name(row): s for row in rows if (s := _seconds(row)) is not None and s > 0}
    if seconds and max(seconds.values()) > APART * min(seconds.values()):
        told = {name: f"{s:.3g} s" for name, s in seconds.items()}
        found.append(f"budgets differ in seconds of a trial ({_listed(told)}): at equal time some have fewer trials")
    short = [_name(row) for row in rows if len(row.trials) < n]
    if short:
        found.append(f"fewer than {n} trials, so no value: {', '.join(short)}")
    return found


def _seeds(row: Search) -> str:
    known = [own.runs for own in row.trials]
    return str(known[0]) if min(known) == max(known) else f"{min(known)} to {max(known)}"


def _listed(told: dict[str, str], most: int = 4) -> str:
    parts = [f"{name} {value}" for name, value in told.items()]
    return ", ".join(parts[:most]) + (f", and {len(parts) - most} more" if len(parts) > most else "")


def _lost(rows: Sequence[Search], n: int) -> list[str]:
    found = []
    for row in rows:
        lost, at = [own for own in row.trials if own.validation is None], row.at(n)
        if lost:
            which = f"{len(lost)} of {len(row.trials)} trials of {_name(row)} cannot be chosen ({lost[0].status})"
            chance = f", so {100 * at.lost:.2g} % of searches of {n} choose none" if at is not None and at.lost else ""
            found.append(f"{which}: they are drawn all the same{chance}")
    return found


def lines_of(found: BestOf) -> list[dict[str, Any]]:
    """Return one line per objective and n: the curve, and what all trials choose."""
    lines = []
    for row in found.objectives:
        for at in row.curve:
            line = {
                "task": row.task, "objective": row.label, "score": found.score, "n": at.n, "mean": at.mean,
                "sd": at.sd, "with_replacement": at.with_replacement, "lost": at.lost, "trials": len(row.trials),
                "seconds_per_trial": _seconds(row), "chosen": _chosen(row),
            }  # fmt: skip
            lines.append({key: printable(v, None) if isinstance(v, str) else v for key, v in line.items()})
    return lines


def tree_of(found: BestOf) -> dict[str, Any]:
    """Return the whole as names and values."""
    return {
        "score": found.score, "unit": found.unit, "better": found.better, "n": found.n,
        "chosen_by": "validation", "estimate": "U-statistic over searches without replacement (Tang et al. 2020)",
        "with_replacement": "V-statistic (Dodge et al. 2019), biased towards fewer trials", "seconds": found.clock,
        "sentence": found.sentence, "notes": list(found.notes), "columns": list(found.columns),
        "tasks": list(found.tasks), "objectives": [asdict(row) for row in found.objectives],
    }  # fmt: skip
