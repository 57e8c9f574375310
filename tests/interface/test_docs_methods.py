"""The map of methods (``docs/methods.md``) is true: every command trains, and the columns are the objects it makes."""

import numpy as np
import pytest
import torch

from se_framework.config.composing import config_dir, groups
from tests.support.composing import compose
from tests.support.pages import classes, methods
from tests.support.smaller import smaller

DEFAULT_DTYPE = torch.float32
TINY = [
    "loop.rounds=1",
    "loop.batch_size=16",
    "loop.log_every=1",
    "loop.early_stop=null",
    "progress=false",
    "device=cpu",
    "stages=[]",
]
METHODS = methods()
EXPERIMENTS = groups([config_dir()])["experiment"]


@pytest.fixture(autouse=True)
def two_files(tmp_path, monkeypatch):
    """The files that a row names."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(64, 2))
    for name in ("x.csv", "y.csv"):
        np.savetxt(name, rows, delimiter=",", header="a,b", comments="")


def parts(equation):
    """Return the names of the classes of D, of f with its penalty, and of q."""
    f = [] if equation.metric is None else [equation.metric.network, equation.metric.penalty]
    return [
        [type(x).__name__ for x in own if x is not None] for own in ([equation.divergence], f, [equation.auxiliary])
    ]


def check(method):
    """Train a round of a row and compare its columns with the objects.

    The columns name the classes of the equation, then those of views that a player has, then those of summands.
    """
    assembly = compose(None, [*method.overrides, *smaller(method.overrides[0].partition("=")[2]), *TINY])
    equation, players = assembly.state.equation, assembly.state.players
    d, f, q = parts(equation)
    d += [type(p.view).__name__ for p in players if f"{p.name} sees `" in method.divergence]
    for _, _, further in equation.summands():
        for column, more in zip((d, f, q), parts(further), strict=True):
            column += more
    assert [classes(cell) for cell in (method.divergence, method.metric, method.auxiliary)] == [d, f, q], method
    assert method.weights == f"{equation.alpha:g}, {equation.beta:g}", method
    assembly.train()
    assert [row["round"] for row in assembly.state.history] == [1], method


@pytest.mark.soak
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_rows_of_an_experiment_train_and_say_what_they_are(experiment, soak):
    """``make soak``: all rows. ``make test``: the first and the last of each experiment."""
    rows = [method for method in METHODS if method.overrides[0] == f"experiment={experiment}"]
    for method in rows if soak else rows[:1] + rows[1:][-1:]:
        check(method)


def test_a_wrong_column_is_found():
    row = METHODS[0]
    for wrong in ({"divergence": "`KL`"}, {"metric": "`MLPCritic`"}, {"auxiliary": "`Tilted`"}, {"weights": "1, 1"}):
        with pytest.raises(AssertionError):
            check(row._replace(**wrong))


def test_every_experiment_has_a_row():
    assert {method.overrides[0].removeprefix("experiment=") for method in METHODS} == set(EXPERIMENTS)


def test_no_two_rows_are_one():
    assert len({tuple(method.overrides) for method in METHODS}) == len(METHODS)
