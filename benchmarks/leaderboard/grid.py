"""Which cells are played: a cell is an objective on a data set, and a part is what se-compare sees as one table.

The default grid (``tables``) holds every choice of every axis, but not their product:

* **divergences**: every f-divergence and surrogate that has a dual, under one constraint (R1), on one data set (ring8).
  ``alpha`` of order 1/2 and ``gan`` are left out: those are games of squared Hellinger and Jensen-Shannon, but for a
  factor;
* **constraints**: every constraint on the critic, under two divergences (Jensen-Shannon, which needs none, and W1,
  which needs a Lipschitz one), on the same data set; what is not legal is left out;
* **systems**: shipped experiments, on every data set.

``full`` takes the product of all divergences, constraints and data sets instead, as far as it is legal, and the systems
on three data sets more. ``tiny`` is what tests play.
"""

from __future__ import annotations

from dataclasses import dataclass

GENERATOR, CRITIC = "model.width=64 loop.batch_size=128", "metric.network.width=64"
"""Smaller than those of the experiments: of a budget of seconds more rounds are worth more than width."""
# One line makes a system: its name in tables, and the words after ``se-train``.
SYSTEMS = {
    "vanilla_gan": f"experiment=vanilla_gan {GENERATOR} {CRITIC}",
    "mle_flow": "experiment=mle_flow loop.batch_size=128",
    "wgan_gp": f"experiment=wgan_gp {GENERATOR} {CRITIC}",
    "energy": f"experiment=sinkhorn divergence=energy {GENERATOR}",
    "sngan_hinge": f"experiment=sngan_hinge {GENERATOR} {CRITIC}",
    "sinkhorn": f"experiment=sinkhorn {GENERATOR}",
}
FIRST = "ring8"
"""The data set on which axes are crossed."""
DATA = ("digits_dequantized", "grid25")
"""Those on which systems are played besides; digits with noise below a grey level, since a density has no atoms."""
MORE_DATA = ("moons", "checkerboard", "swissroll")
F_DIVERGENCES = (
    "jensen_shannon", "kl", "reverse_kl", "squared_hellinger", "jeffreys", "pearson", "neyman", "softened_reverse_kl",
    "weighted_js", "le_cam", "renyi", "total_variation",
)  # fmt: skip
SURROGATES = ("hinge", "least_squares")
CONSTRAINTS = (
    "mlp", "mlp_r1", "mlp_gradient_penalty", "mlp_gradient_penalty_one_sided", "mlp_gradient_penalty_weak", "groupsort",
    "spectral", "mlp_clip",
)  # fmt: skip
LIPSCHITZ, NEED_LIPSCHITZ = CONSTRAINTS[2:], ("wasserstein1",)
"""Constraints that bound the slope, and what is not legal without one (the equation says so; here it is not asked)."""
RECIPE = f"experiment=vanilla_gan {GENERATOR} {CRITIC}"
"""Generator, optimiser, rates and batch of every crossed cell: those of this experiment."""
PARTS = ("divergences", "constraints", "systems", "product")


@dataclass(frozen=True)
class Cell:
    """An objective on a data set.

    Attributes:
        objective: its name in tables.
        data: the choice of the group ``data``.
        words: after ``se-train``, without the data.
        parts: tables in which it stands.
    """

    objective: str
    data: str
    words: str
    parts: tuple[str, ...]


def crossed(divergence: str, constraint: str, data: str, part: str) -> Cell:
    """Return the cell of a divergence under a constraint, by the one recipe."""
    words = f"{RECIPE} divergence={divergence} metric={constraint}"
    return Cell(f"{divergence} {constraint}", data, words, (part,))


def system(name: str, data: str) -> Cell:
    """Return the cell of a system."""
    return Cell(name, data, SYSTEMS[name], ("systems",))


def cells(grid: str) -> list[Cell]:
    """Return the cells of a grid in the order in which they are played; one that is in several parts stands once.

    Args:
        grid: tables, full or tiny.
    """
    return merged(GRIDS[grid]())


def merged(found: list[Cell]) -> list[Cell]:
    """Return cells with those of equal data and words made one, which stands in all their parts."""
    one: dict[tuple[str, str], Cell] = {}
    for cell in found:
        key = cell.data, cell.words
        known = one.get(key, cell)
        one[key] = Cell(known.objective, *key, tuple(dict.fromkeys((*known.parts, *cell.parts))))
    return list(one.values())


def _tables() -> list[Cell]:
    found = [system(name, data) for name in SYSTEMS for data in (FIRST, *DATA)]
    found += [
        crossed(d, c, FIRST, "constraints")
        for d in ("jensen_shannon", "wasserstein1")
        for c in CONSTRAINTS
        if d not in NEED_LIPSCHITZ or c in LIPSCHITZ
    ]
    return found + [crossed(d, "mlp_r1", FIRST, "divergences") for d in (*F_DIVERGENCES, *SURROGATES)]


def _full() -> list[Cell]:
    every = (*F_DIVERGENCES, *SURROGATES, "wasserstein1")
    where = (FIRST, *DATA, *MORE_DATA)
    found = [system(name, data) for data in where for name in SYSTEMS]
    return found + [crossed(d, c, data, "product") for data in where for d in every for c in CONSTRAINTS]


def _tiny() -> list[Cell]:
    return [crossed(d, "mlp_r1", FIRST, "divergences") for d in ("jensen_shannon", "kl")]


GRIDS = {"tables": _tables, "full": _full, "tiny": _tiny}
"""Grids by the name that ``GRID=`` takes."""
