"""A player's step is its optimiser's own: a plain loop in torch gives the same bits, and who listens is heard."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from se_framework.equation.roles import Role
from se_framework.training.players import Player
from tests.support.comparing import same

HORIZON = 10


def net(dtype=torch.float32):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)


def player_of(module, make, sign=-1):
    return Player(Role("theta", {"own": module}, module, sign), make(module.parameters()), decay="linear")


def loss_at(module, t):
    """Return the loss of a step; the last bias has no part in the third."""
    first, last = module[:2], module[2]
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(t), dtype=last.weight.dtype)
    y = first(x) @ last.weight.mT
    return (y if t == 2 else y + last.bias).square().mean()


def plain(make, dtype, steps):
    """Return a module and its optimiser after some steps of a loop that knows torch alone."""
    module = net(dtype)
    optimizer = make(module.parameters())
    rate = optimizer.param_groups[0]["lr"]
    for t in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - t / HORIZON)
        optimizer.zero_grad(set_to_none=True)
        loss_at(module, t).backward()
        optimizer.step()
    return module, optimizer


def ours(make, dtype, steps, queued=False):
    """Return the same of a player's steps, by the path of a CPU or by that of a device that nobody waits for."""
    module = net(dtype)
    player, broken = player_of(module, make), torch.zeros((), dtype=torch.bool) if queued else None
    for t in range(steps):
        player.set_rate(t, HORIZON)
        loss = loss_at(module, t)
        figures, broken = player.apply(loss, (loss,), broken)
        assert float(figures[0]) == float(loss.detach()) and not bool(broken)
    assert player.steps_taken == steps
    return module, player.optimizer


def moments(optimizer):
    return [dict(state) for state in optimizer.state.values()]


class Decaying(torch.optim.Adam):
    """A subclass with a step of its own."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter *= 0.9


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, fused=True),
    "adam, no momentum": lambda p: torch.optim.Adam(p, betas=(0.0, 0.99), eps=1e-3, fused=True),
    "adam, decay of weights": lambda p: torch.optim.Adam(p, weight_decay=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, weight_decay=0.1, fused=True),
    "adamw, upwards": lambda p: torch.optim.AdamW(p, fused=True, maximize=True),
    "not fused": lambda p: torch.optim.Adam(p, foreach=False),
    "amsgrad": lambda p: torch.optim.Adam(p, fused=True, amsgrad=True),
    "subclass": lambda p: Decaying(p, fused=True),
    "groups": lambda p: torch.optim.Adam(
        [{"params": [q], "weight_decay": 0.1 * i} for i, q in enumerate(p)], fused=True
    ),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "momentum, fused": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, fused=True),
    "plain descent": lambda p: torch.optim.SGD(p, lr=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("queued", [False, True], ids=["read", "queued"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_players_steps_are_those_of_a_plain_loop_to_the_bit(name, queued, dtype):
    module, optimizer = ours(OPTIMIZERS[name], dtype, 4, queued)
    want, other = plain(OPTIMIZERS[name], dtype, 4)
    assert same(list(module.parameters()), list(want.parameters()))
    assert same(moments(optimizer), moments(other))


@pytest.mark.parametrize("queued", [False, True], ids=["read", "queued"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_is_called_off_moves_no_weight_and_no_moment(name, queued):
    """Broken by what was checked, or by an earlier step of the round; the step is counted and later undone."""
    module, _ = net(), None
    player = player_of(module, OPTIMIZERS[name])
    loss = loss_at(module, 0)
    player.apply(loss, (loss,), torch.zeros((), dtype=torch.bool) if queued else None)
    before = copy.deepcopy((module.state_dict(), moments(player.optimizer)))
    for t, (value, earlier) in enumerate([(torch.nan, False), (1.0, True), (torch.inf, False)], 1):
        broken = torch.tensor(earlier) if queued else earlier
        _, now = player.apply(loss_at(module, t), (torch.tensor(value),), broken)
        assert bool(now)
    assert same(before, (module.state_dict(), moments(player.optimizer)))


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook", "every", "attribute"])
def test_who_listens_to_steps_is_heard(register):
    heard, module = [], net()
    player = player_of(module, OPTIMIZERS["adam"])
    handle = None
    if register == "every":
        handle = register_optimizer_step_post_hook(lambda *_: heard.append(1))
    elif register == "attribute":
        step = player.optimizer.step
        player.optimizer.step = lambda: (heard.append(1), step())
    else:
        getattr(player.optimizer, register)(lambda *_: heard.append(1))
    loss = loss_at(module, 0)
    player.apply(loss, (loss,))
    if handle is not None:
        handle.remove()
    assert heard == [1]


def test_parameters_of_several_types_are_one_players():
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))
    module = nn.ParameterList([one, two])
    player = player_of(module, OPTIMIZERS["adam"])
    for _ in range(2):
        loss = one.sum() + two.sum().float()
        player.apply(loss, (loss,))
    # Adam's steps of a constant gradient are its rate: 1e-3 each, to 1e-8 of it (eps).
    for parameter in (one, two):
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 1 - 2e-3), rtol=0, atol=1e-7)


def test_gradients_of_several_losses_add_up_to_one_step():
    """Accumulating in two halves is one step on their sum, to the rounding of one addition."""
    whole, halves = net(torch.float64), net(torch.float64)
    one, two = player_of(whole, OPTIMIZERS["plain descent"]), player_of(halves, OPTIMIZERS["plain descent"])
    one.apply(loss_at(whole, 0) + loss_at(whole, 1), ())
    two.clear()
    two.accumulate(loss_at(halves, 0))
    two.accumulate(loss_at(halves, 1))
    figures, broken = two.step(())
    assert two.steps_taken == 1 and not broken and figures[0] > 0
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-15)


def test_without_a_gradient_nothing_moves():
    module = net()
    player = player_of(module, OPTIMIZERS["adam"])
    before = copy.deepcopy(module.state_dict())
    player.clear()
    assert player.step(()) == ([0.0], False)
    assert same(before, module.state_dict()) and not any(player.optimizer.state.values())
