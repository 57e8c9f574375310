"""A step by Adam's kernel is that of torch's own ``step``, to the bit, and whatever else there is goes torch's way."""

import copy

import pytest
import torch
from se_framework.training.optimizers import make_step
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from se_framework.training import optimizers


def net(dtype=torch.float32):
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)


def walk(step, make, dtype=torch.float32, rounds=4):
    """Return parameters and moments after some steps of seeded gradients; the last parameter has none in the third."""
    torch.manual_seed(1)
    module = net(dtype)
    optimizer = make(module.parameters())
    for t in range(rounds):
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)
        if t == 2:
            parameter.grad = None
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (t + 1)
        step(optimizer)
    return [*module.parameters(), *(t for state in optimizer.state.values() for t in state.values())]


@pytest.fixture
def direct(monkeypatch):
    """Count the direct calls of the kernels."""
    calls = []
    for name in ("_fused_adam_", "_fused_adamw_"):
        kernel = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, kernel=kernel, **k: (calls.append(1), kernel(*a, **k)))
    return calls


OPTIONS = [
    {},
    {"betas": (0.0, 0.99), "eps": 1e-3},
    {"weight_decay": 0.1},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_kernel_called_directly_is_torchs_step(kind, options, dtype, direct):
    found = walk(make_step, lambda p: kind(p, fused=True, **options), dtype)
    seen = len(direct)
    want = walk(lambda o: o.step(), lambda p: kind(p, fused=True, **options), dtype)
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))
    assert seen == len(direct) - seen == 4


def test_torchs_own_step_is_left_out(monkeypatch):
    module = net()
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: pytest.fail("torch's step was called"))
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
        optimizer.state[parameter] = {
            "step": torch.zeros(()), "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)
        }  # fmt: skip
    make_step(optimizer)
    assert all(float(state["step"]) == 1 for state in optimizer.state.values())


class Decaying(torch.optim.Adam):
    """A subclass with a step of its own."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter *= 0.9


OTHERS = {
    "first step": lambda p: torch.optim.Adam(p, fused=True),
    "not fused": lambda p: torch.optim.Adam(p),
    "amsgrad": lambda p: torch.optim.Adam(p, fused=True, amsgrad=True),
    "maximize": lambda p: torch.optim.AdamW(p, fused=True, maximize=True),
    "rate on the device": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-2), fused=True),
    "subclass": lambda p: Decaying(p, fused=True),
    "groups": lambda p: torch.optim.Adam(
        [{"params": [q], "weight_decay": 0.1 * i} for i, q in enumerate(p)], fused=True
    ),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "plain descent": lambda p: torch.optim.SGD(p, lr=1e-2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_all_else_goes_torchs_way(name):
    found, want = (walk(step, OTHERS[name], rounds=3) for step in (make_step, lambda o: o.step()))
    assert len(found) == len(want) and all(torch.equal(a, b) for a, b in zip(found, want, strict=True))


def armed():
    """Return a module and a fused Adam that has made a step."""
    module = net()
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return module, optimizer


def test_who_listens_to_steps_is_heard():
    heard = []
    for register in ("register_step_pre_hook", "register_step_post_hook"):
        _, optimizer = armed()
        getattr(optimizer, register)(lambda *_: heard.append(1))
        make_step(optimizer)
    _, optimizer = armed()
    handle = register_optimizer_step_post_hook(lambda *_: heard.append(1))
    make_step(optimizer)
    handle.remove()
    _, optimizer = armed()
    optimizer.step = lambda: heard.append(1)
    make_step(optimizer)
    assert len(heard) == 4


def test_a_step_that_a_scaler_calls_off_is_called_off():
    module, optimizer = armed()
    before = copy.deepcopy(module.state_dict())
    optimizer.found_inf = torch.ones(())
    make_step(optimizer)
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


def test_mixed_types_go_torchs_way(direct):
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.Adam([one, two], fused=True)
    for _ in range(2):
        one.grad, two.grad = torch.ones_like(one), torch.ones_like(two)
        make_step(optimizer)
    assert len(direct) == 4 and not torch.equal(one.detach(), torch.ones(2))  # torch calls the kernel for each type


def test_no_gradient_no_step():
    module = net()
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    make_step(optimizer)
    assert not any(optimizer.state.values()) and optimizers._is_plain(optimizer)
