"""The metric f_phi: a critic network together with its function class."""

from __future__ import annotations

from torch import Tensor, nn

from se_framework.errors import IncompatibleError
from se_framework.penalties import Penalty


class Metric(nn.Module):
    r"""f_phi: from x, shape (B, \*E), to one score v per example, shape (B,).

    The function class is what the network is by construction (a constant ``lipschitz`` on its class) or what the
    penalty drives it to; otherwise it is unrestricted.

    Args:
        network: a module from (B, \*E) to (B,).
        penalty: added to phi's loss; None for none.
    """

    def __init__(self, network: nn.Module, penalty: Penalty | None = None) -> None:
        super().__init__()
        self.network = network
        self.penalty = penalty

    @property
    def function_class(self) -> str:
        """Return ``"1-Lipschitz by construction"``, ``"1-Lipschitz by penalty"`` or ``"unrestricted"``."""
        constant = getattr(self.network, "lipschitz", None)
        if constant is not None and constant <= 1:
            return "1-Lipschitz by construction"
        if self.penalty is not None and self.penalty.enforces_lipschitz and self.penalty.weight > 0:
            return "1-Lipschitz by penalty"
        return "unrestricted"

    @property
    def batch_coupled(self) -> bool:
        """Whether one example's score depends on the others (batch normalisation)."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules())

    def forward(self, x: Tensor) -> Tensor:
        r"""Return v, shape (B,).

        Raises:
            ValueError: the network returned another shape.
        """
        v = self.network(x)
        if v.shape != x.shape[:1]:
            raise ValueError(
                f"metric.network {type(self.network).__name__} returned {tuple(v.shape)} for a batch of {len(x)}: "
                "one score per example, shape (B,), is needed (squeeze the last axis)"
            )
        return v

    def log_ratio(self, x: Tensor) -> Tensor:
        """Return v, which at the optimum of an f-divergence's dual (auxiliary=dual) is log(p_d/p_theta), shape (B,).

        Under another auxiliary v is shifted or tilted: ``StandardEquation.log_ratio`` takes that off.

        Raises:
            IncompatibleError: a constrained function class holds no log-ratio.
        """
        if self.function_class != "unrestricted":
            raise IncompatibleError(
                f"metric is {self.function_class}: its output is a potential, not a log-ratio; train with metric=mlp"
            )
        return self.forward(x)
