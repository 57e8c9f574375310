"""What a fast path is held against: the plain losses and their gradients, on the same draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from se_framework.training.draws import Draws

Losses = Callable[[Draws], tuple[Tensor, tuple[Tensor, ...]]]
"""What a player minimises, and the scalars that are checked and recorded with it, all of shape ()."""


def evaluate(
    losses: Losses, draws: Draws, parameters: Sequence[Tensor], buffers: Sequence[Tensor]
) -> tuple[list[Tensor], str]:
    """Return the checked scalars in one tensor and the gradients, and what the evaluation changed, in words.

    Buffers and torch's own generators are put back.
    """
    device = draws["x"].device
    generators = [torch.default_generator] + (
        [torch.cuda.default_generators[device.index or 0]] if device.type == "cuda" else []
    )
    before, drawn = [b.clone() for b in buffers], [g.get_state() for g in generators]
    loss, checked = losses(draws)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    moved = any(not torch.equal(b, old) for b, old in zip(buffers, before, strict=True))
    drew = any(not torch.equal(g.get_state(), old) for g, old in zip(generators, drawn, strict=True))
    with torch.no_grad():
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(old)
    for g, old in zip(generators, drawn, strict=True):
        g.set_state(old)
    impure = "a forward pass moves buffers" * moved or "a forward pass draws random numbers" * drew
    return [torch.stack([c.detach() for c in checked]), *gradients], impure


def must_agree(plain: Sequence[Tensor], fast: Sequence[Tensor], spacing: float | None = None) -> None:
    r"""Refuse values and gradients that are not those of the plain step.

    Each tensor may be off by :math:`\sqrt\epsilon` of the norm of all values, or of all gradients, :math:`\epsilon`
    being the spacing of floats at one: half of the digits. Another order of summation moves a sum of n terms by about
    :math:`\sqrt n\,\epsilon`, times how far its terms cancel, so at n = 10^4 a cancellation to a thirtieth is let pass
    in float32; one example of a batch of B that is left out moves it by 1/B, seen for B below 2,900.

    Args:
        plain: values in one tensor, then gradients.
        fast: the same, to be judged.
        spacing: :math:`\epsilon`; None for that of the tensors' type.

    Raises:
        ValueError: they differ; the message says by how much.
    """
    tolerance = (spacing or max(torch.finfo(t.dtype).eps for t in plain)) ** 0.5
    for what, ours, theirs in (("value", plain[:1], fast[:1]), ("gradient", plain[1:], fast[1:])):
        scale = float(nn.utils.get_total_norm(list(ours)))
        worst = max(float((a - b).norm()) for a, b in zip(ours, theirs, strict=True))
        if not worst <= tolerance * scale:
            raise ValueError(f"its {what} is off by {worst:.2g} of {scale:.2g}, more than {tolerance:.1g} of it")


def reason(error: BaseException) -> str:
    """Return what an error says, in one line of at most 200 characters."""
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
