r"""The equation in MathML, which browsers typeset without a script, and beside it what stands for each symbol.

.. math::
    \min_\theta\max_\phi\min_q\;
    -\alpha H(q) + \beta D(q,p_\theta) - \mathbb E_q[f_\phi] + \mathbb E_{p_d}[f_\phi]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from se_framework.comparison.report.html import text
from se_framework.describe import choice


def mi(name: str, symbol: str = "") -> str:
    """Return an identifier; ``symbol`` is the key by which the page's table points at it."""
    return f"<mi{_key(symbol)}>{name}</mi>"


def _key(symbol: str) -> str:
    return f' data-symbol="{symbol}"' if symbol else ""


def sub(base: str, index: str, symbol: str = "") -> str:
    """Return a base with an index."""
    return f"<msub{_key(symbol)}>{base}{index}</msub>"


def optimum(which: str, over: str) -> str:
    """Return ``min`` or ``max`` with what it runs over below it."""
    return f'<munder><mo movablelimits="false" form="prefix" lspace="0" rspace="0.2em">{which}</mo>{over}</munder>'


def sign(which: str) -> str:
    """Return the sign before a term."""
    return f'<mo form="infix" lspace="0" rspace="0.22em">{which}</mo>'


THIN = '<mspace width="0.12em"/>'
THETA, PHI, Q = mi("&theta;", "p"), mi("&phi;", "f"), mi("q", "q")
P_THETA = sub(mi("p"), mi("&theta;"), "p")
P_DATA = sub(mi("p"), mi("d"), "data")
F_PHI = sub(mi("f"), mi("&phi;"), "f")


def call(name: str, *arguments: str) -> str:
    """Return a function of arguments."""
    inner = "<mo>,</mo>".join(arguments)
    return f"<mrow>{name}<mo>(</mo>{inner}<mo>)</mo></mrow>"


def mean(law: str) -> str:
    """Return the mean of f under a law."""
    return f"<mrow>{sub('<mi>&Eopf;</mi>', law)}<mo>[</mo>{F_PHI}<mo>]</mo></mrow>"


def equation(summands: int = 0) -> str:
    """Return the equation as a row of terms, which a narrow window breaks between them.

    Args:
        summands: further equations that are added.
    """
    terms = [
        optimum("min", THETA) + optimum("max", PHI) + optimum("min", Q),
        sign("&minus;") + mi("&alpha;", "alpha") + THIN + call(mi("H"), Q),
        sign("+") + mi("&beta;", "beta") + THIN + call(mi("D", "D"), Q, P_THETA),
        sign("&minus;") + mean(Q),
        sign("+") + mean(P_DATA),
    ]
    for k in range(1, summands + 1):
        name, key = f"<mn>{k}</mn>", f"plus{k}"
        terms.append(sign("+") + sub(mi("w"), name, key) + THIN + sub(mi("T"), name, key))
    inner = "".join(f'<math displaystyle="true"><mrow>{term}</mrow></math>' for term in terms)
    return f'<div class="equation">{inner}</div>'


def inline(inner: str) -> str:
    """Return a symbol in a line of text."""
    return f"<math>{inner}</math>"


def symbols(config: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield for every symbol its key, its MathML, what it is, and the class with the values that stands for it."""
    numbers = config.get("equation") or {}
    yield "p", inline(P_THETA), "the model", choice(config.get("model"))
    yield "f", inline(F_PHI), "the metric", choice(config.get("metric"))
    yield "D", inline(mi("D", "D")), "the divergence", choice(config.get("divergence"))
    yield "q", inline(Q), "the auxiliary", choice(config.get("auxiliary"))
    yield "data", inline(P_DATA), "the data", choice(config.get("data"))
    yield "alpha", inline(mi("&alpha;", "alpha")), "weight of the entropy", f"{numbers.get('alpha')}"
    yield "beta", inline(mi("&beta;", "beta")), "weight of the divergence", f"{numbers.get('beta')}"
    for k, (name, node) in enumerate((config.get("plus") or {}).items(), 1):
        shown = ", ".join(
            f"{key} {choice(value) if isinstance(value, dict) else value}"
            for key, value in (node or {}).items()
            if value is not None
        )
        symbol = inline(sub(mi("T"), f"<mn>{k}</mn>", f"plus{k}"))
        yield f"plus{k}", symbol, f"added as plus.{name}", shown


def short_choice(config: dict[str, Any]) -> str:
    """Return the choices of a run in one line: the classes that stand for D, q, f, p_theta and the data."""
    named = []
    for key in ("divergence", "auxiliary", "metric", "model", "data"):
        node = config.get(key)
        target = node.get("_target_") if isinstance(node, dict) else None
        if not isinstance(target, str):
            continue
        inside = node.get("network") if key == "metric" else None  # type: ignore[union-attr]
        deeper = inside.get("_target_") if isinstance(inside, dict) else None
        named.append((deeper if isinstance(deeper, str) else target).rpartition(".")[2])
    return text(" \u00b7 ".join(named))
