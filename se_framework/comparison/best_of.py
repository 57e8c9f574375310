"""The best of n trials of each objective: what objectives come to that were tuned, at the same number of trials.

What is compared is an *objective*: runs whose parts are of the same classes (model, metric, divergence, auxiliary,
views), and of the same experiment where a sweep named one. What else differs between its runs was tuned; runs that
differ in seed alone are one *trial*, whose figures are their means. Trials are chosen by their score over validation
rows (``loop.early_stop``) and judged by their score over held-out rows, which has no part in the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from se_framework.comparison.grouping import ONLY, check_alike, chosen_score, label, split_tasks
from se_framework.comparison.outcome import Outcome
from se_framework.comparison.searches import Expected, curve
from se_framework.comparison.settings import (
    GROUPS,
    NAMING,
    Value,
    choices,
    classes,
    differing,
    identity,
    is_complete,
    name_of,
    part_of,
)
from se_framework.comparison.told_best_of import notes_of, sentence_of
from se_framework.errors import ConfigError
from se_framework.evaluation.losses import loss_of

if TYPE_CHECKING:
    from se_framework.comparison.cells import Column

BY = "validation"
"""The score over validation rows, as a run that looks at some records it."""
OBJECTIVE = tuple(name for name in NAMING if name not in ("data", "optimizer"))
"""Keys whose values name an objective."""
NOT_OBJECTIVE = ("data", "optimizer", "callbacks", "hydra")
"""Parts whose classes may be tuned, or say nothing of what was trained."""


@dataclass(frozen=True)
class Trial:
    """A configuration that was tried.

    Attributes:
        settings: what was tuned, by key.
        validation: loss over validation rows, mean over seeds; None where one of them has none.
        score: over held-out rows, mean over seeds; None likewise.
        runs: of it, one for each seed.
        seconds: of training, of all of them; None where that is not known.
        rounds: of each of them.
        status: finished, or what became of the first that did not.
    """

    settings: dict[str, Value]
    validation: float | None
    score: float | None
    runs: int
    seconds: float | None
    rounds: int | None
    status: str


@dataclass(frozen=True)
class Search:
    """An objective and its trials.

    Attributes:
        task: the data (and what else separates tasks); empty where there is one only.
        label: what tells it from the others.
        settings: the same by key.
        trials: in the order in which they were found.
        curve: the best of 1, 2, ... trials.
        losses: the same of what ranks the score, least first.
        chosen: the trial that all of them choose; None where none can be chosen.
    """

    task: str
    label: str
    settings: dict[str, Value]
    trials: tuple[Trial, ...]
    curve: tuple[Expected, ...]
    losses: tuple[float | None, ...]
    chosen: Trial | None

    def at(self, n: int) -> Expected | None:
        """Return the best of n; None with fewer trials."""
        return self.curve[n - 1] if n <= len(self.curve) else None

    def loss_at(self, n: int) -> float:
        """Return what ranks the best of n, least first; infinite where there is none."""
        found = self.losses[n - 1] if n <= len(self.losses) else None
        return float("inf") if found is None else found


@dataclass(frozen=True)
class BestOf:
    """A table of tuned objectives; see :func:`best_of`.

    Attributes:
        objectives: by task, and within it the best at n first.
        n: trials of a search, the same for all.
        score: over held-out rows, its name.
        unit: of the score.
        better: lower, higher, or nearer.
        sentence: which is best at n.
        notes: budgets that differ, trials that failed, what is assumed.
        columns: keys of :attr:`Search.settings`.
        tasks: their names.
        clock: of the seconds.
    """

    objectives: tuple[Search, ...]
    n: int
    score: str
    unit: str | None
    better: str | None
    sentence: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    tasks: tuple[str, ...]
    clock: str | None

    def __str__(self) -> str:
        from se_framework.comparison.formats import text

        return text(self)

    def tables(self) -> list[list[Column]]:
        """Return the columns of the one table."""
        from se_framework.comparison.told_best_of import columns_of

        return [columns_of(self)]

    def told(self) -> list[str]:
        """Return what stands under it."""
        return [self.sentence, *self.notes]

    def lines(self) -> list[dict[str, Any]]:
        """Return one line per objective and n."""
        from se_framework.comparison.told_best_of import lines_of

        return lines_of(self)

    def tree(self) -> dict[str, Any]:
        """Return the whole as names and values."""
        from se_framework.comparison.told_best_of import tree_of

        return tree_of(self)


def best_of(
    outcomes: Sequence[Outcome], score: str | None = None, by: str | None = None, n: int | None = None
) -> BestOf:
    """Return what the best of n trials of each objective comes to.

    Args:
        outcomes: of runs, see :func:`se_framework.comparison.runs.read_runs`.
        score: over held-out rows; None as in :func:`~se_framework.comparison.comparison.compare`.
        by: a key whose values are tasks of their own, besides the data.
        n: trials of a search; None for as many as every objective has.

    Raises:
        ConfigError: no trial has a score over validation rows, scores were measured in different ways, or n is none.
    """
    known = [own for own in outcomes if own.settings]
    finished = [own for own in known if own.status == "finished"]
    blind = [own for own in finished if "value" not in own.scores.get(BY, {})]
    if not finished or len(blind) == len(finished):
        first = f", first {blind[0].path}" if blind else ""
        raise ConfigError(
            f"best_of chooses by validation, never by held-out rows, and none of {len(finished)} finished runs has a "
            f"score over validation rows{first}: train with loop.early_stop=w2 (loop.patience=1000000 looks at the end)"
        )
    name = chosen_score(known, score)
    if name is None or name == BY:
        raise ConfigError(f"score={name}: it is what trials are chosen by: choose a score over held-out rows")
    searches, notes = _searches(known, name, by)
    trials = [len(own.trials) for own in searches]
    n, most = min(trials) if n is None else n, max(trials)
    if not 1 <= n <= most:
        raise ConfigError(f"best_of={n}: must lie in 1..{most}, the most trials that an objective has")
    entries = [own.scores[name] for own in finished if "value" in own.scores.get(name, {})]
    tasks = tuple(dict.fromkeys(own.task for own in searches))
    ordered = sorted(searches, key=lambda own: (tasks.index(own.task), own.loss_at(n)))
    clocks = {own.clock for own in finished} - {None}
    found = BestOf(
        tuple(ordered), n, name, entries[0].get("unit"), entries[0].get("better"), "", (),
        tuple(searches[0].settings), tasks, "processor" if clocks == {"processor"} else "wall" if clocks else None,
    )  # fmt: skip
    if blind:
        notes.append(
            f"{len(blind)} of {len(finished)} finished runs have no score over validation rows, so none of them can be "
            f"chosen: first {blind[0].path}"
        )
    return replace(found, sentence=sentence_of(found), notes=(*notes, *notes_of(found)))


def _searches(known: Sequence[Outcome], score: str, by: str | None) -> tuple[list[Search], list[str]]:
    """Return the trials of every objective on every task, and what is to be said of how they were measured."""
    tasks, rows = split_tasks(known, by)
    of_task, named = differing(tasks), [_named(row) for row in rows]
    every = dict.fromkeys(key for row in named for key in row)
    keys = [key for key in every if len({row.get(key) for row in named}) > 1]
    found: dict[Any, dict[Any, list[int]]] = {}
    for k, (task, row) in enumerate(zip(tasks, rows, strict=True)):
        found.setdefault(identity(task), {}).setdefault(_parts(row, named[k]), []).append(k)
    searches, notes = [], []
    for of_one in found.values():
        where = label(tasks[next(iter(of_one.values()))[0]], of_task, short=True)
        alike = [known[k] for members in of_one.values() for k in members if known[k].status == "finished"]
        for name in (score, BY):
            notes += [f"{where}: {said}" if where else said for said in check_alike(alike, name)]
        for members in of_one.values():
            settings = {key: named[members[0]].get(key) for key in keys}
            trials = _trials([known[k] for k in members], [rows[k] for k in members], score)
            searches.append(_search(where, label(settings, keys) or ONLY, settings, trials, score, alike))
    return searches, list(dict.fromkeys(notes))


def _search(
    task: str, name: str, settings: dict[str, Value], trials: list[Trial], score: str, alike: Sequence[Outcome]
) -> Search:
    validation, values = (
        np.array([np.nan if value is None else value for value in column])
        for column in ([own.validation for own in trials], [own.score for own in trials])
    )
    entry = next((own.scores[score] for own in alike if "value" in own.scores.get(score, {})), {})
    losses = np.array([loss_of({**entry, "value": value}) if np.isfinite(value) else np.nan for value in values])
    can = [own for own in trials if own.validation is not None]
    chosen = min(can, key=lambda own: own.validation or 0.0) if can else None
    ranked = tuple(at.mean for at in curve(validation, losses))
    return Search(task, name, settings, tuple(trials), tuple(curve(validation, values)), ranked, chosen)


def _named(row: dict[str, Value]) -> dict[str, Value]:
    """Return the names of an objective's parts: a number that was tuned does not make another choice of a part."""
    found = dict[str, Value]()
    for key in OBJECTIVE:
        value = row.get(key)
        if key in GROUPS and value in choices(key):
            value = name_of(key, dict(classes(part_of(row, key))))
        found[key] = value
    inner = sorted((key, value) for key, value in classes(row) if key.partition(".")[0] in ("players", "plus"))
    return found | {key.removesuffix("._target_"): str(value).rpartition(".")[2] for key, value in inner}


def _parts(row: dict[str, Value], named: dict[str, Value]) -> Any:
    """Return what two trials of one objective have in common; of a job that left no configuration, its words."""
    if not is_complete(row):
        return tuple(named.items())
    targets = {(key, value) for key, value in classes(row) if key.partition(".")[0] not in NOT_OBJECTIVE}
    return frozenset(targets), row.get("experiment")


def _trials(outcomes: list[Outcome], rows: list[dict[str, Value]], score: str) -> list[Trial]:
    """Return trials in the order in which their first runs come: runs that differ in seed alone are one."""
    tuned, members = differing(rows), dict[Any, list[int]]()
    for k, row in enumerate(rows):
        members.setdefault(identity(row), []).append(k)
    found = []
    for own in members.values():
        runs, first = [outcomes[k] for k in own], rows[own[0]]
        seconds = [run.seconds for run in runs if run.seconds is not None]
        lost = next((run.status for run in runs if run.status != "finished"), "finished")
        settings = {key: first.get(key) for key in tuned if key not in OBJECTIVE}
        found.append(
            Trial(
                settings,
                _over_seeds(runs, BY),
                _over_seeds(runs, score),
                len(runs),
                sum(seconds) if len(seconds) == len(runs) else None,
                runs[0].rounds,
                lost,
            )  # fmt: skip
        )
    return found


def _over_seeds(runs: Sequence[Outcome], score: str) -> float | None:
    """Return the mean over a trial's seeds; None where one of them has none: what fails by chance is not chosen."""
    values = [run.scores.get(score, {}).get("value", np.nan) if run.status == "finished" else np.nan for run in runs]
    return float(np.mean(values)) if np.isfinite(values).all() else None
