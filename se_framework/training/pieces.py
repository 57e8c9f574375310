r"""A step whose batch is cut into pieces: their gradients are added, and one step is taken.

The memory is that of a piece. What is drawn is drawn for the whole batch and cut, so the step has the numbers of the
uncut one; and where the scalar is a mean over particles and examples the mean of the pieces' gradients is its gradient
(`legality.accumulation` refuses it elsewhere). Batch normalisation takes the figures of each piece alone ("ghost
batches": Hoffer, Hubara, Soudry, "Train longer, generalize better", NIPS 2017): that is another step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import gcd

from torch import Tensor

from se_framework.errors import ConfigError
from se_framework.training.draws import Draws
from se_framework.training.players import Player

Losses = Callable[[Draws], tuple[Tensor, tuple[Tensor, ...]]]


def gathered(player: Player, losses: Losses, draws: Draws) -> tuple[Tensor, ...]:
    """Put the gradient of a step into a player's parameters, piece by piece.

    Args:
        player: who moves, in ``player.pieces`` pieces.
        losses: from draws to what it minimises, and the scalars that are checked with it, all of shape ().
        draws: of the whole batch.

    Returns:
        The scalars, of the whole batch.
    """
    if player.pieces == 1:
        loss, checked = losses(draws)
        player.clear()
        player.accumulate(loss)
        return checked
    player.clear()
    rows: list[tuple[Tensor, ...]] = []
    for piece in cut(draws, player.pieces, player.name):
        loss, checked = losses(piece)
        player.accumulate(loss / player.pieces)
        rows.append(tuple(c.detach() for c in checked))
    return tuple(sum(column[1:], column[0]) / player.pieces for column in zip(*rows, strict=True))


def cut(draws: Draws, pieces: int, name: str) -> Iterator[Draws]:
    """Yield the draws of each piece of a batch.

    Raises:
        ConfigError: the pieces are not equal, or something was not drawn once for each example.
    """
    n = len(draws["x"])
    check_pieces({name: pieces}, n)
    for purpose, drawn in draws.items():
        if len(drawn) != n:
            raise ConfigError(
                f"players.{name}.accumulate={pieces}: {purpose} is not drawn once for each of {n} examples but has "
                f"shape {tuple(drawn.shape)}: players.{name}.accumulate=1"
            )
    size = n // pieces
    for k in range(pieces):
        yield {purpose: drawn[k * size : (k + 1) * size] for purpose, drawn in draws.items()}


def check_pieces(pieces: Mapping[str, int], n: int) -> None:
    """Refuse pieces of a batch that are not equal.

    Args:
        pieces: how many, by player.
        n: examples of the batch.

    Raises:
        ConfigError: see above.
    """
    for name, count in pieces.items():
        if n % count:
            raise ConfigError(
                f"players.{name}.accumulate={count} does not divide the batch of {n} examples: "
                f"players.{name}.accumulate={gcd(n, count)}, or loop.batch_size={max(1, n // count) * count}"
            )
