"""A value of a kind that stands nowhere near is refused in a sentence, for every key that holds a part or a group."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from se_framework.assembly import assembly_of
from se_framework.config.composing import compose
from se_framework.config.schema import validate
from se_framework.errors import SEError

WRONG = ([1, 2], ["a"], "kl", 3, True, {"a": 1}, {"_target_": []}, {1: 2}, [{"_target_": "divergences.KL"}])
KEYS = (
    "model", "metric", "divergence", "auxiliary", "data", "optimizer", "metric.network", "metric.penalty",
    "players.theta.view", "players.theta", "players", "plus", "plus.a", "plus.a.divergence", "callbacks", "callbacks.a",
    "tracker", "stages", "ensemble", "ensemble.values", "equation", "loop", "performance", "allow",
)  # fmt: skip
WORDS = ["data=ring8", "device=cpu", "model.width=4", "metric.network.width=4"]


@pytest.fixture(scope="module")
def plain():
    return OmegaConf.to_container(compose("vanilla_gan", WORDS))


@pytest.mark.parametrize(
    ("key", "members"), [*((key, 1) for key in KEYS), *((key, 2) for key in ("metric", "plus", "plus.a"))]
)
def test_a_value_of_another_kind_is_refused_or_read(key, members, plain):
    """Found in a spoilt run: a list in the place of the metric ended in another library's traceback."""
    *above, last = key.split(".")
    refused = 0
    for wrong in WRONG:
        config = OmegaConf.to_container(OmegaConf.create(plain))
        config["ensemble"]["size"] = members
        node = config
        for name in above:
            node[name] = node.get(name) or {}
            node = node[name]
        node[last] = wrong
        try:
            for one in getattr(found := assembly_of(validate(OmegaConf.create(config))), "members", [found]):
                one.listeners()
        except SEError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(WRONG) / 2
