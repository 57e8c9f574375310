"""What the tests of ensembles share: an ensemble beside the single runs that its members are, and their distance."""

from functools import cache

import torch
from omegaconf import OmegaConf

from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.training.step import play_round
from tests.support.smaller import smaller

K = 3
NORMALISED = ("biggan", "dcgan", "sagan", "sngan")
REFUSED = {"sinkhorn": "Sinkhorn", "sinkhorn_learned": "Sinkhorn"} | dict.fromkeys(NORMALISED, "batch normalisation")
"""The experiments that run one problem at a time, and the part that does not allow more."""
BASE = ["loop.batch_size=16", "device=cpu", "progress=false", "loop.log_every=0", "stages=[]",
        "loop.early_stop=null"]  # fmt: skip
SMALL = ["model.width=16", "model.depth=1", "metric.network.width=16", "metric.network.depth=1"]


@cache
def composed(experiment, *overrides):
    """Return a configuration, not to be changed: Hydra takes longer than a few rounds."""
    return compose(experiment, [*BASE, *smaller(experiment), *overrides])


def both(experiment, overrides=(), members=K):
    """Return an ensemble and the single runs that its members are."""
    plain = composed(experiment, *overrides)
    together = OmegaConf.merge(plain, {"ensemble": {"size": members}})
    alone = [OmegaConf.merge(plain, {"seed": k}) for k in range(members)]
    return assembly_of(together), [assembly_of(config) for config in alone]


def rounds(together, alone, count, horizon=50):
    """Play rounds of both."""
    for _ in range(count):
        play_round(together.state, together.data, 16, horizon)
        for single in alone:
            play_round(single.state, single.data, 16, horizon)


def poison(state, k, value=float("nan")):
    """Make one weight of a member's model not finite."""
    with torch.no_grad():
        next(state.members[k].equation.model.parameters()).view(-1)[0] = value


def tensors(state):
    """Return weights and buffers, averages and moments of a state by name."""
    found = {}
    for player in state.players:
        found |= {f"{player.name}.{name}": t for name, t in player.module.state_dict().items()}
        if player.average is not None:
            found |= {f"{player.name}.average.{name}": t for name, t in player.average.state_dict().items()}
        for i, p in enumerate(player.parameters):
            moments = player.optimizer.state.get(p, {})
            found |= {f"{player.name}.{i}.{name}": torch.as_tensor(m) for name, m in moments.items()}
    return found


def distance(one, other):
    """Return the largest difference of two states, tensor by tensor, relative to the size of the tensor.

    Of weights to 0.1 at least: one on which the equation does not depend (a bias under ``tilted``) has a gradient of
    pure rounding, 1e-16, which Adam's 1e-8 turns into steps of 1e-8 learning rates; of moments to 1e-6.
    """
    a, b = tensors(one), tensors(other)
    assert list(a) == list(b)
    floor = {name: 1e-6 if name.split(".")[1].isdigit() else 0.1 for name in b}
    scale = {name: max(float(t.abs().max()), floor[name]) for name, t in b.items() if t.numel()}
    return max(float((a[name].double() - b[name].double()).abs().max()) / scale[name] for name in scale)
