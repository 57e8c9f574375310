"""Errors planted one by one into a copy of the source, and the claims of se-verify that notice.

    python tests/support/mutations.py             measure the errors that benchmarks/verify/mutations.json lacks
    python tests/support/mutations.py NAME ...    measure these again

The libraries are imported once; every mutation is measured in a fork of its own, from its own copy of the packages.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LIST = ROOT / "benchmarks" / "verify" / "mutations.json"


class Mutation(NamedTuple):
    """An error: a text of a file that occurs there once, and what stands in its place."""

    name: str
    file: str
    old: str
    new: str


MUTATIONS = [
    Mutation("sign of E_pd f", "se_framework/equation/equation.py", "return minimum + f_data", "return minimum - f_data"),  # noqa: E501
    Mutation("beta forgotten in f", "se_framework/equation/auxiliary.py", "return _scaled(beta, divergence.link(v))",
             "return divergence.link(v)"),
    Mutation("beta forgotten in the conjugate", "se_framework/equation/auxiliary.py",
             "-_scaled(problem.beta, problem.divergence.mean", "-_scaled(1.0, problem.divergence.mean"),
    Mutation("conjugate's sign over probabilities", "se_framework/equation/auxiliary.py",
             "return -_scaled(problem.beta, self._inner(problem).conjugate)",
             "return _scaled(problem.beta, self._inner(problem).conjugate)"),
    Mutation("critic on data in the place of samples", "se_framework/equation/equation.py",
             "metric.on_both(data, p)", "metric.on_both(data, data)"),
    Mutation("samples detached from theta", "se_framework/equation/equation.py",
             "return p if context is None else", "return p.detach() if context is None else"),
    Mutation("view ignored", "se_framework/equation/equation.py", "divergence = divergence or self.divergence",
             "divergence = self.divergence"),
    Mutation("alpha ignored in the temperature", "se_framework/equation/auxiliary.py", "problem.alpha + c * problem.beta",  # noqa: E501
             "1.0 + c * problem.beta"),
    Mutation("c of KL forgotten", "se_framework/equation/auxiliary.py", "problem.alpha + c * problem.beta",
             "problem.alpha + 0 * problem.beta"),
    Mutation("tau forgotten before log Z", "se_framework/equation/auxiliary.py",
             "return -tau * p.log_mean_exp(((problem.beta - tau)", "return -p.log_mean_exp(((problem.beta - tau)"),
    Mutation("sign of log p in the tilt", "se_framework/equation/auxiliary.py",
             "p.log_mean_exp(((problem.beta - tau) * _log_density(problem) + v) / tau)",
             "p.log_mean_exp(((tau - problem.beta) * _log_density(problem) + v) / tau)"),
    Mutation("entropy's sign on record", "se_framework/equation/auxiliary.py",
             "entropy, cross_entropy = -p.mean(weight * log_q)", "entropy, cross_entropy = p.mean(weight * log_q)"),
    Mutation("D on record without c H", "se_framework/equation/auxiliary.py", "cross_entropy - c * entropy",
             "cross_entropy + c * entropy"),
    Mutation("weights not exponentiated over letters", "models/laws.py",
             "weights = self.log_weights.to(values.dtype).exp()", "weights = self.log_weights.to(values.dtype).neg()"),
    Mutation("log of a sum in the place of a mean", "models/laws.py", "logsumexp(values, 0) - log(len(values))",
             "logsumexp(values, 0)"),
    Mutation("weights forgotten in log-mean-exp", "models/laws.py", "0.0, values) + log_weights, 0)",
             "0.0, values), 0) - log(len(values))"),
    Mutation("softmax of the model over a wrong axis", "models/tabular.py", "self.logits.log_softmax(0)",
             "self.logits - self.logits.logsumexp(0).detach()"),
    Mutation("log-determinant's sign", "models/laws.py", "return standard_normal_log_prob(z) + ladj",
             "return standard_normal_log_prob(z) - ladj"),
    Mutation("log(2 pi) lost", "models/laws.py", "(z.square() + log(2 * pi))", "(z.square() + log(pi))"),
    Mutation("KL's conjugate shifted", "divergences/generators.py", "        return v.exp()\n\n    def view",
             "        return v.exp() - 1\n\n    def view"),
    Mutation("Pearson's link without its factor", "divergences/generators.py", "return 2 * torch.expm1(v)",
             "return torch.expm1(v)"),
    Mutation("Neyman's sign in v", "divergences/generators.py", "return -torch.expm1(-2 * v)",
             "return torch.expm1(2 * v)"),
    Mutation("alpha's link of the next order", "divergences/parametric.py", "return phi(self.order - 1, v)",
             "return phi(self.order, v)"),
    Mutation("weighted JS with its weights exchanged", "divergences/parametric.py",
             "return (1 - self.weight) * log_mixture(1 - self.weight, self.weight, v)",
             "return self.weight * log_mixture(1 - self.weight, self.weight, v)"),
    Mutation("total variation without its half", "divergences/total_variation.py", "return torch.tanh(v) / 2",
             "return torch.tanh(v)"),
    Mutation("hinge with the margin's sign exchanged", "divergences/surrogates.py", "torch.relu(1 + v)",
             "torch.relu(1 - v)"),
    Mutation("least squares: theta aims at the fake label", "divergences/surrogates.py",
             "generator=lambda v, of: (v - 1).square() / 2", "generator=lambda v, of: v.square() / 2"),
    Mutation("raised link's sign", "divergences/surrogates.py", "generator=lambda v, of: -_link(v, of)",
             "generator=lambda v, of: _link(v, of)"),
    Mutation("kernel distance with one cross term", "divergences/kernels.py",
             "self._within(y, b) - 2 * between", "self._within(y, b) - between"),
    Mutation("U-statistic with the V-statistic's weight", "divergences/kernels.py",
             "/ (1 - a.square().sum())", "/ 1.0"),
    Mutation("gradient penalty's norm over one axis", "se_framework/equation/penalties.py",
             "gradient(metric, x).flatten(1), dim=1)", "gradient(metric, x).flatten(1)[:, :1], dim=1)"),
    Mutation("gradient penalty between the wrong ends", "se_framework/equation/penalties.py",
             "torch.lerp(x_model[:n], x_data[:n], epsilon)", "torch.lerp(x_data[:n], x_model[:n], epsilon)"),
    Mutation("one-sided penalty on both sides", "se_framework/equation/penalties.py", "excess.clamp(min=0)", "excess"),
    Mutation("R1 without its half", "se_framework/equation/penalties.py", "return total / 2", "return total"),
    Mutation("lazy penalty without its factor", "se_framework/equation/penalties.py", "self.weight * self.every * self.penalty",  # noqa: E501
             "self.weight * self.penalty"),
    Mutation("c-transform adds the cost", "se_framework/equation/auxiliary/transported.py", "(scores - cost(distances",
             "(scores + cost(distances"),
    Mutation("Renyi's bound with its factor inverted", "divergences/renyi.py", "* (self.order / b)",
             "* (b / self.order)"),
    Mutation("cross-entropy's sign", "divergences/likelihood.py", "-q.mean(", "q.mean("),
]  # fmt: skip


def planted(mutation: Mutation, folder: Path) -> None:
    """Copy the packages to a folder and plant the error there.

    Raises:
        ValueError: the text does not occur exactly once.
    """
    for package in ("se_framework", "divergences", "models"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / mutation.file
    text = file.read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.old!r} occurs {text.count(mutation.old)} times in {mutation.file}"
        )
    file.write_text(text.replace(mutation.old, mutation.new))


def failing(folder: Path, names: set[str] | None) -> list[str]:
    """Return the claims that fail in the packages of a folder; all claims, or those named."""
    sys.path.insert(0, str(folder))
    from se_framework.commands.verify import SUITES
    from se_framework.verify import check, collect

    modules = [importlib.import_module(name) for name in (*SUITES["equivalences"], *SUITES["dynamics"])]
    claims = [c for module in modules for c in collect(module) if c.name != "final_radii"]
    return [c.name for c in claims if (names is None or c.name in names) and not check(c).holds]


def caught_by(mutation: Mutation, names: set[str] | None = None) -> list[str]:
    """Return the claims that fail under a mutation, measured in a fork."""
    with tempfile.TemporaryDirectory() as place:
        planted(mutation, Path(place))
        out = Path(place) / "failing.json"
        child = os.fork()
        if child == 0:
            try:
                out.write_text(json.dumps(failing(Path(place), names)))
            except BaseException as error:  # the error keeps the packages from loading: noticed, by no claim
                out.write_text(json.dumps([f"import: {error}"]))
            os._exit(0)
        os.waitpid(child, 0)
        return json.loads(out.read_text())


def main() -> None:
    """Measure the mutations named, or all, and write the list."""
    sys.path = [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "tests")]
    import scipy.optimize  # noqa: F401  # imported before the forks
    import torch

    torch.set_num_threads(1)
    if sys.argv[1:] and sys.argv[1].startswith("{"):  # {name: [claims]}: only those claims, answered as JSON
        wanted = json.loads(sys.argv[1])
        found = {m.name: caught_by(m, set(wanted[m.name])) for m in MUTATIONS if m.name in wanted}
        print(json.dumps(found))
        return
    known = json.loads(LIST.read_text()) if LIST.exists() else {}
    LIST.parent.mkdir(exist_ok=True)
    for mutation in MUTATIONS:
        if mutation.name in sys.argv[1:] or (not sys.argv[1:] and mutation.name not in known):
            known[mutation.name] = caught_by(mutation)
            print(f"{mutation.name}: {', '.join(known[mutation.name]) or 'NOT CAUGHT'}", flush=True)
            rows = {m.name: known[m.name] for m in MUTATIONS if m.name in known}
            LIST.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
