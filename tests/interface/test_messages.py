"""What a user meets who errs: what was got, what would fit, and the word to type. By kind, not by input."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch

import divergences as d
import se_framework as se
from se_framework.__main__ import main
from se_framework.commands import verify
from se_framework.data import TensorData, as_data
from se_framework.errors import ConfigError, DataError, SEError
from tests.support.user_objects import convex

SHORT = ["loop.rounds=1", "loop.batch_size=8", "progress=false", "device=cpu"]


def sentence(error):
    """One line, and nothing of a traceback."""
    text = str(error.value)
    assert "\n" not in text and len(text) > 20
    return text


# -- generators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("h", "near"),
    [
        # h'' = 1/u - 2c changes sign at 1/(2c): convex below.
        (lambda u: torch.xlogy(u, u) - 0.31 * (u - 1) ** 2 - (u - 1), 1 / 0.62),
        # h'' = 2c - 1/u changes sign at 1/(2c): convex above.
        (lambda u: 5 * (u - 1) ** 2 - torch.xlogy(u, u) + (u - 1), 0.1),
    ],
)
def test_a_generator_that_is_not_convex_is_told_where_that_begins(h, near):
    with pytest.raises(ValueError, match="is not convex: h' falls at u = ") as caught:
        d.FDivergence(h)
    at = float(re.search(r"u = (\S+)", sentence(caught))[1])
    assert at == pytest.approx(near, rel=0.011)  # the grid of log u has steps of 1 %, and three digits are shown


def test_a_convex_one_is_taken():
    d.FDivergence(convex)


# -- samples and data -------------------------------------------------------------------------------------------------

ROWS = torch.arange(24.0).reshape(12, 2)
SPARSE, NESTED = ROWS.to_sparse(), torch.nested.nested_tensor([ROWS[:2], ROWS[:3]], layout=torch.jagged)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (ROWS.numpy(), "got a ndarray for x: write torch.as_tensor(x)"),
        ([[1.0]], "got a list for x"),
        (SPARSE, "got a sparse tensor for x: write x.to_dense()"),
        (NESTED, "got a nested tensor for x"),
    ],
    ids=["numpy", "list", "sparse", "nested"],
)
def test_an_estimate_says_what_is_no_sample(x, words):
    with pytest.raises(TypeError, match=re.escape(words)) as caught:
        d.EnergyDistance().estimate(x, ROWS)
    sentence(caught)
    with pytest.raises(TypeError, match="for v_data"):
        d.KL().bound([0.0], ROWS[:, 0])


def test_whole_numbers_are_points():
    whole, floats = (d.EnergyDistance().estimate(t, t + 1) for t in (ROWS.long(), ROWS))
    assert float(whole.value) == float(floats.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (SPARSE, "sparse tensor; give x.to_dense()"),
        (NESTED, "nested tensor; give padded rows"),
        (torch.utils.data.DataLoader(torch.utils.data.TensorDataset(ROWS), batch_size=3),
         "give its dataset, loader.dataset, and loop.batch_size=3, workers=0"),
    ],
    ids=["sparse", "nested", "loader"],
)  # fmt: skip
def test_data_that_cannot_be_taken(source, words):
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        as_data(source)
    sentence(caught)


def test_an_iterable_dataset_is_refused_with_what_to_write():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield ROWS[0]

    with pytest.raises(DataError, match="write a Sampler with draw"):
        as_data(Endless())


@pytest.mark.parametrize("labels", [[0, 1] * 6, "ab", 3])
def test_labels_that_are_no_tensor(labels):
    with pytest.raises(DataError, match="give a tensor or an array"):
        TensorData(ROWS, labels=labels)
    assert TensorData(ROWS, labels=np.array([0, 1] * 6)).classes == 2


# -- declarations of parts --------------------------------------------------------------------------------------------


class Bare(se.Dual):
    """Returns its minimum where a record of terms is wanted."""

    def solve(self, problem):
        return self.minimum(problem)


def test_an_auxiliary_that_returns_no_solution_is_told_what_to_return():
    assembly = se.compose("fgan", [*SHORT, "loop.log_every=1"], auxiliary=Bare())
    with pytest.raises(SEError, match="Bare.solve must return a Solution, got a Tensor: write se_framework.Solution"):
        assembly.train()


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--claims", "./mine.py"], "--claims ./mine.py is no module: write its name, --claims mine"),
        (["--claims", "folder/mine"], "--claims folder/mine is no module: write its name, --claims folder.mine"),
        (["--claims", "nowhere"], "--claims nowhere: No module named 'nowhere'"),
        (["--claims", "broken_claims"], "--claims broken_claims: ValueError: no luck"),
        (["--json", "."], "--json . is a folder: name a file in it"),
    ],
)
def test_se_verify_answers_in_a_sentence(words, message, tmp_path, monkeypatch):
    (tmp_path / "broken_claims.py").write_text("raise ValueError('no\\nluck')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        verify.verify(verify._arguments(words))
    sentence(caught)


def test_a_claim_that_yields_no_comparison_fails_with_what_to_yield(tmp_path, monkeypatch):
    from se_framework.verify.claims import check, claim

    @claim("true is true", "nobody")
    def wrong():
        yield True

    verdict = check(wrong)
    assert not verdict.holds and "it yields a bool, not a comparison: yield equal(...)" in verdict.failure


def test_a_sweep_where_nothing_can_be_written_is_refused_at_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["se-train", "-m", "seed=0,1", "hydra.sweep.dir=file/x"])
    with pytest.raises(SystemExit, match="1"):
        main()
    told = capsys.readouterr().err
    assert told.startswith("se-train: hydra.sweep.dir=file/x cannot be the directory of a run or sweep (")


def test_the_version_is_ours(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["se-train", "--version"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out.startswith(f"se-framework {se.__version__} (")


def test_a_byte_order_mark_before_the_package_is_named(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("\ufeff# @package _global_\nseed: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="starts with a byte order mark"):
        se.compose("mine", config_dirs=[tmp_path])


def test_of_two_mistakes_the_right_one_is_named(tmp_path):
    """A choice of one's own that stands well is not blamed for a key that does not exist."""
    (tmp_path / "divergence").mkdir()
    (tmp_path / "divergence" / "mine.yaml").write_text("_target_: divergences.KL\n")
    view = "divergence@players.phi.view=mine"
    with pytest.raises(ConfigError, match="unknown key 'loop.roundss'"):
        se.compose("vanilla_gan", [view, "loop.roundss=3"], config_dirs=[tmp_path])
    with pytest.raises(ConfigError, match="divergence@nowhere: no choice stands at 'nowhere'"):
        se.compose("vanilla_gan", [view, "divergence@nowhere=mine"], config_dirs=[tmp_path])


@pytest.mark.parametrize(
    "key", ["players", "players.theta", "players.phi.ema", "loop", "loop.keep_best", "plus", "seed"]
)
def test_what_every_run_has_cannot_be_deleted(key):
    with pytest.raises(ConfigError, match=f"^{key} has no value: give {key}=VALUE, or do not delete it$"):
        se.compose(None, [f"~{key}"])


def test_what_a_choice_has_can_be_deleted():
    assert se.compose("flow_gan", ["~plus.likelihood"]).state.equation.weights == {}


@pytest.mark.parametrize("word", ["modell=affine", "loop.roundss=3", "divergence=klx"])
def test_help_beside_a_wrong_word_says_what_is_wrong(word, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["se-train", word, "--help"])
    with pytest.raises(SystemExit, match="1"):
        main()
    told = capsys.readouterr()
    assert not told.out and word.partition("=")[0] in told.err
