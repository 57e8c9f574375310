"""Coupling flows of three other libraries at the same sizes: couplings, hidden layers and, within 1 %, parameters.

Each flow is built from its library's own couplings, with the same perceptron as conditioner (zuko makes its own). The
laws differ in details that the libraries fix, such as how a scale is bounded and whether halves are interleaved; so
what is checked is that each is a law: its log-density is that of the change of variables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.speed.contest import Absent

Kind = Literal["realnvp", "spline"]
BINS, BOUND = 8, 5.0


@dataclass(frozen=True)
class Flow:
    """A flow of a library in one vocabulary.

    Attributes:
        module: holds the parameters.
        log_prob: from (N, d) to (N,).
        sample: from a number of points to (n, d).
        latent: from data to the standard normal noise that makes it, (N, d) to (N, d).
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]
    latent: Callable[[Tensor], Tensor]


class Conditioner(nn.Sequential):
    """A perceptron with two hidden layers that is offered a context and has no use for it."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (N, inputs) to (N, outputs)."""
        return super().forward(x)


def nflows(kind: Kind, d: int, couplings: int, width: int) -> Flow:
    """Return a flow of nflows."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow as Law
    from nflows.transforms import CompositeTransform
    from nflows.transforms import coupling as of

    net = partial(Conditioner, width=width)
    masks = [torch.arange(d) % 2 == i % 2 for i in range(couplings)]
    if kind == "realnvp":
        layers = [of.AffineCouplingTransform(mask, net) for mask in masks]
    else:
        layers = [
            of.PiecewiseRationalQuadraticCouplingTransform(mask, net, BINS, tails="linear", tail_bound=BOUND)
            for mask in masks
        ]
    law = Law(CompositeTransform(layers), StandardNormal([d]))
    return Flow(law, law.log_prob, law.sample, law.transform_to_noise)


def zuko(kind: Kind, d: int, couplings: int, width: int) -> Flow:
    """Return a flow of zuko."""
    from zuko.flows import NICE
    from zuko.transforms import MonotonicRQSTransform

    spline: dict[str, Any] = {
        "univariate": partial(MonotonicRQSTransform, bound=BOUND), "shapes": ((BINS,), (BINS,), (BINS - 1,)),
    }  # fmt: skip
    flow = NICE(d, transforms=couplings, hidden_features=(width, width), **(spline if kind == "spline" else {}))
    return Flow(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)), lambda x: flow().transform(x))


def normflows(kind: Kind, d: int, couplings: int, width: int) -> Flow:
    """Return a flow of normflows."""
    import normflows as nf
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling as Spline

    layers: list[nn.Module] = []
    for i in range(couplings):
        if kind == "realnvp":
            net = nf.nets.MLP([d - d // 2, width, width, 2 * (d // 2)])
            layers += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(d, mode="swap")]
        else:
            mask = torch.arange(d) % 2 == i % 2
            spline = Spline(mask, partial(Conditioner, width=width), BINS, tails="linear", tail_bound=BOUND)
            layers.append(nf.flows.Reverse(spline))
    law = nf.NormalizingFlow(nf.distributions.DiagGaussian(d, trainable=False), layers)
    return Flow(law, law.log_prob, lambda n: law.sample(n)[0], law.inverse)


LIBRARIES: dict[str, Callable[[Kind, int, int, int], Flow]] = {"nflows": nflows, "zuko": zuko, "normflows": normflows}


def installed(kind: Kind, d: int, couplings: int, width: int) -> dict[str, Flow]:
    """Return the flows of the libraries that are here.

    Raises:
        Absent: none is.
    """
    found = {}
    for name, make in LIBRARIES.items():
        try:
            found[name] = make(kind, d, couplings, width)
        except ModuleNotFoundError:
            continue
    if not found:
        raise Absent(f"none of {', '.join(LIBRARIES)} is installed: pip install -e '.[bench]'")
    return found
