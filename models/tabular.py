r"""A finite alphabet :math:`\{0,\dots,K-1\}`, on which every expectation of the theory is a finite sum."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from models.arguments import checked_at_least
from models.base import Critic, Model, check_context
from models.laws import Weighted


def _check(owner: str, event_shape: tuple[int, ...], letters: int) -> None:
    checked_at_least("letters", letters, 2)
    if tuple(event_shape) != (1,):
        raise ValueError(f"{owner} is for letters, examples of shape (1,), got {tuple(event_shape)}; use (1,)")


class TabularModel(Model):
    r"""The categorical family :math:`p_\theta(k)=e^{\theta_k}/\sum_j e^{\theta_j}`; starts uniform.

    Args:
        event_shape: (1,); a letter is a float in 0..K-1.
        letters: K.

    Raises:
        ValueError: another event shape, or fewer than two letters.
    """

    sources: tuple[str, ...] = ()
    has_log_prob: ClassVar[bool] = True
    has_rsample: ClassVar[bool] = False

    def __init__(self, event_shape: tuple[int, ...] = (1,), letters: int = 6) -> None:
        super().__init__(event_shape)
        _check("TabularModel", event_shape, letters)
        self.logits = nn.Parameter(torch.zeros(letters))

    def forward(self, context: Tensor | None = None) -> Weighted:
        """Return the law over all K letters, with the counting measure as reference."""
        check_context(self, context)
        points = torch.arange(self.logits.shape[0], dtype=self.logits.dtype, device=self.logits.device)
        return Weighted(points[:, None], self.logits.log_softmax(0))


class TabularCritic(Critic):
    r"""One free score per letter: every function on the alphabet; starts at zero.

    Args:
        event_shape: (1,).
        letters: K.

    Raises:
        ValueError: another event shape, or fewer than two letters.
    """

    sources: tuple[str, ...] = ()
    row_wise: ClassVar[bool] = True

    def __init__(self, event_shape: tuple[int, ...] = (1,), letters: int = 6) -> None:
        super().__init__(event_shape)
        _check("TabularCritic", event_shape, letters)
        self.scores = nn.Parameter(torch.zeros(letters))

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Look up the scores, shape (B,); NaN for a value that is no letter, since an index would wrap around."""
        letters = torch.arange(self.scores.shape[0], dtype=x.dtype, device=x.device)
        hit = x == letters
        return torch.where(hit.any(1), hit.to(self.scores.dtype) @ self.scores, torch.nan)
