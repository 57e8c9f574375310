"""se-verify: every claim holds, a false one fails, and the command says so."""

from __future__ import annotations

import importlib
import json
import math

import numpy as np
import pytest
import torch

from divergences import Surrogate
from se_framework.commands.verify import SUITES, lines
from se_framework.verify import alphabet, at_most, check, chosen, claim, collect, equal, rate, sampled
from se_framework.verify import references as ref
from se_framework.verify.claims import STATISTICAL_COMPARISONS
from tests.support.commands import VERIFY, call

EQUIVALENCES = [c for name in SUITES["equivalences"] for c in collect(importlib.import_module(name))]
DYNAMICS = [c for name in SUITES["dynamics"] for c in collect(importlib.import_module(name))]
QUICK = [c for c in DYNAMICS if c.name != "final_radii"]  # that one simulates 10,000 steps


@pytest.mark.parametrize("this", EQUIVALENCES + QUICK, ids=lambda c: c.name)
def test_claim_holds(this):
    verdict = check(this)
    assert verdict.failure is None
    assert verdict.comparisons
    assert verdict.holds, [c for c in verdict.comparisons if not c.holds]


def test_there_are_enough_claims_and_each_has_a_source():
    assert len(EQUIVALENCES) >= 45
    assert len({c.name for c in EQUIVALENCES + DYNAMICS}) == len(EQUIVALENCES + DYNAMICS)
    assert all(c.statement and c.source for c in EQUIVALENCES + DYNAMICS)


def test_statistical_comparisons_are_within_their_budget():
    random = [c for c in EQUIVALENCES if c.module.endswith((".estimation", ".transport"))]
    found = [c for this in random for c in check(this).comparisons if c.unit == "sigma"]
    assert 0 < len(found) <= STATISTICAL_COMPARISONS


def verdict_of(*comparisons):
    @claim("a statement", "a source")
    def statement():
        yield from comparisons

    return check(statement)


def test_a_claim_fails_by_one_comparison_by_none_by_nan_and_by_an_error():
    good = equal("good", 1.0, 1.0)
    assert verdict_of(good).holds
    for bad in (
        equal("value", 1.0, 1.0 + 2e-6), equal("nan", math.nan, 1.0), equal("shape", np.zeros(2), np.zeros(3)),
        at_most("order", 1.0, 0.5), rate("exponent", [1, 2, 4], [1, 2, 4], 2.0), sampled("far", 1.0, 0.1, 1.5),
    ):  # fmt: skip
        assert not verdict_of(good, bad).holds
        assert verdict_of(good, bad).worst == bad or math.isnan(bad.error)
    assert not verdict_of().holds

    @claim("a statement", "a source")
    def breaks():
        yield good
        raise ValueError("broken")

    assert not check(breaks).holds
    assert check(breaks).failure == "ValueError: broken"
    assert torch.get_default_dtype() == torch.float32


def test_verdicts_are_json():
    verdict = verdict_of(rate("square", [1e-1, 1e-2], [3e-2, 3e-4], 2.0), equal("sum", np.ones(2), [1.0, 1.0]))
    assert json.loads(json.dumps(verdict.as_dict()))["holds"] is True


def test_comparisons_accept_what_is_right():
    assert equal("relative to the largest", [1e9 + 1, 0.0], [1e9, 0.0]).holds
    assert at_most("order", 0.5, 1.0).error == 0
    assert rate("square", [1e-1, 1e-2], [3e-2, 3e-4], 2.0).holds
    assert sampled("near", 1.0, 0.1, 1.2).holds
    assert sampled("near", 1.0, 0.1, 1.2).tolerance == pytest.approx(4.417, abs=1e-3)  # 1e-3 over 100, two-sided


def test_filter_looks_at_name_statement_and_source():
    assert [c.name for c in chosen(EQUIVALENCES, "Zellner")] == ["bayes"]
    assert {c.name for c in chosen(EQUIVALENCES, "HINGE")} == {"hinge_is_total_variation", "hinge_gradient"}


def test_references_agree_with_each_other():
    """The independent side is itself checked: two ways to each number."""
    q, p = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.1, 0.5])
    for name, h in ref.GENERATORS.items():
        assert (p * h(q / p)).sum() == pytest.approx(float(ref.INTEGRALS[name](q, p)), rel=1e-12)
    step = 1e-6
    for name, integral in ref.INTEGRALS.items():
        slope = ref.model_slope(integral, q, p)
        for i, e in enumerate(np.eye(3)):
            sides = []
            for sign in (1, -1):
                logits = np.log(p) + sign * step * e
                sides.append(float(integral(q, np.exp(logits) / np.exp(logits).sum())))
            # The third derivative is of order one here: central differences are right to step^2 and rounding/step.
            assert slope[i] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8), name
    distance = np.abs(np.arange(3)[:, None] - np.arange(3)[None]).astype(float)
    w1 = ref.transport(q, p, distance)
    assert w1 == pytest.approx(ref.potential(q, p, distance)[1]) == pytest.approx(ref.steps(q, p))
    assert w1 == pytest.approx(ref.quantiles(q, p))


def test_the_command_prints_a_table_and_writes_json(tmp_path):
    done = call([*VERIFY, "--filter", "hinge", "--json", str(tmp_path / "found.json")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 claims hold" in done.stdout and "Lim and Ye 2017" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert [c["name"] for c in found["claims"]] == ["hinge_is_total_variation", "hinge_gradient"]
    assert all(row["holds"] and row["error"] <= row["tolerance"] for c in found["claims"] for row in c["comparisons"])


def test_a_users_claims_and_the_exit_code(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from se_framework.verify import claim, equal\n\n"
        "@claim('two and two', 'arithmetic')\n"
        "def right():\n    yield equal('sum', 2 + 2, 4)\n\n"
        "@claim('two and two is five', 'nobody')\n"
        "def wrong():\n    yield equal('sum', 2 + 2, 5)\n"
    )
    done = call([*VERIFY, "--claims", "mine"], tmp_path)
    assert done.returncode == 1
    assert "1 of 2 claims hold" in done.stdout and "failed: wrong" in done.stdout
    assert "sum: 0.2 relative, tolerance 1e-06" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "equivalence"], "no suite 'equivalence': did you mean 'equivalences'?"),
        (["--claims", "nothing_here"], "--claims nothing_here: No module named 'nothing_here'"),
        (["--filter", "("], "--filter '(' is not a regular expression"),
        (["--filter", "no such claim"], "none matches the filter"),
        (["--device", "abacus"], "--device abacus: not available here"),
        (["--json", "nowhere/found.json"], "its folder does not exist"),
    ],
)
def test_refusals_are_one_sentence(arguments, message, tmp_path):
    done = call([*VERIFY, *arguments], tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("se-verify: ") and message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("seed", range(4))
def test_the_ascent_of_a_dual_that_is_linear_in_pieces_ends_at_its_maximum(seed):
    """The hinge's maximum is at v = sign(pd - p), a corner of six kinks, where L-BFGS stalls (Lim and Ye 2017)."""
    torch.set_default_dtype(torch.float64)
    q, p = alphabet.simplex(seed=seed), alphabet.simplex(seed=seed + 30)
    of = alphabet.equation(Surrogate("hinge"), p)
    best = alphabet.value(of, q, np.sign(q - p))
    for start in (None, 0.7 * alphabet.scores(seed=seed)):
        v = alphabet.best_critic(of, q, start=start)
        assert alphabet.value(of, q, v) == pytest.approx(best, abs=1e-8)  # the programs end at 2e-9


def test_an_ascent_that_does_not_converge_says_so(monkeypatch):
    torch.set_default_dtype(torch.float64)
    q, p = alphabet.simplex(seed=1), alphabet.simplex(seed=2)
    monkeypatch.setattr(alphabet, "PROGRAMS", 2)
    with pytest.raises(RuntimeError, match=r"has not converged: it reaches -?\d.*its tangents allow"):
        alphabet.best_critic(alphabet.equation(Surrogate("hinge"), p), q, start=0.7 * alphabet.scores(seed=1))


def test_both_numbers_are_printed():
    @claim("one is two", "nobody")
    def wrong():
        yield equal("numbers", [1.0, 5.0], [2.0, 5.5])
        yield at_most("order", 3.0, 2.5)

    rows = list(lines(check(wrong), everything=False))
    assert "ours 1, theirs 2" in rows[1] and "ours 3, theirs 2.5" in rows[2]
