"""A device of its own, in Python: tensors that say they lie on it, and refuse to meet those of the CPU, as on a GPU.

Behind each lies a tensor of the CPU, so what runs here gives what a CPU gives unless a line forgets where its tensors
are. It takes torch's hooks for backends written in Python, which hold for the whole process:

    python -m tests.support.other_device 'experiment vanilla_gan data=moons' ...    train and evaluate, there and here
    python -m tests.support.other_device 'row gpu_vanilla' ...                      rows of benchmarks/speed, small
    python -m tests.support.other_device mistake                                    raises: a tensor stayed behind
"""

import math
import sys
from contextlib import nullcontext

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from benchmarks.speed import ensembles, gpu
from se_framework import compose, randomness
from se_framework.evaluation.evaluate import evaluate

NAME = "elsewhere"
CROSS = {"aten::_to_copy", "aten::copy_"}
"""Operations that may read from one device and write to another."""


class There(torch.Tensor):
    """A tensor on the device, before a tensor on the CPU."""

    @staticmethod
    def __new__(cls, real):
        return torch.Tensor._make_wrapper_subclass(
            cls, real.size(), strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype,
            device=f"{NAME}:0",
        )  # fmt: skip

    def __init__(self, real):
        self.inside = real

    def __repr__(self):
        return f"There({self.inside})"

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        torch.Tensor.data.__set__(self, value)
        self.inside = value.inside

    def tolist(self):
        return self.inside.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return played(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Lets functions that make tensors know the device."""

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes them on the CPU and moves them, as we can see
        return super().__enter__()

    def __exit__(self, *raised):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*raised)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return played(func, args, kwargs or {})


def played(func, args, kwargs):
    """Play an operation on the tensors behind, and say where the result lies."""
    name, wanted = func.name().partition(".")[0], kwargs.get("device")
    flat = tree_leaves((args, kwargs))
    theirs = [t for t in flat if isinstance(t, There)]
    if theirs and name not in CROSS:
        for t in flat:
            if isinstance(t, torch.Tensor) and not isinstance(t, There) and t.dim() > 0:
                raise RuntimeError(f"{name}: tensors on {NAME}:0 and on {t.device}")
    there = bool(theirs) if wanted is None else torch.device(wanted).type == NAME
    if name == "aten::copy_":
        there = isinstance(args[0], There)
    here = kwargs if wanted is None else kwargs | {"device": torch.device("cpu")}
    result = func(*tree_map(_inside, args), **tree_map(_inside, here))
    if theirs and torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)  # the shape that the tensor says it has
    known = {id(t.inside): t for t in theirs}  # what is written in place stays the tensor that it is

    def outside(t):
        return t if not isinstance(t, torch.Tensor) else known[id(t)] if id(t) in known else There(t)

    return tree_map(outside, result) if there else result


def _inside(t):
    return t.inside if isinstance(t, There) else t


class _Torch:
    """torch, whose generators are those of the CPU wherever they are wanted: the numbers are then a CPU's too."""

    Generator = staticmethod(lambda device="cpu": torch.Generator())

    def __getattr__(self, name):
        return getattr(torch, name)


def register():
    """Make the device known to torch, for the rest of the process."""
    _setup_privateuseone_for_python_backend(NAME)
    module = torch.get_device_module(torch.device(NAME))
    type(module).manual_seed = lambda self, seed: None
    randomness.torch = _Torch()


def experiment(name, *overrides):
    """Train and evaluate there and here, and compare rows and scores."""
    found = []
    for device in (NAME, "cpu"):
        short = ["loop.rounds=3", "loop.log_every=1", "loop.batch_size=32", "progress=false", f"device={device}"]
        with Elsewhere() if device == NAME else nullcontext():
            assembly = compose(name, [*short, *overrides])
            assembly.train()
            assert {p.device.type for p in assembly.state.equation.parameters()} == {device}
            single = assembly.members[0] if hasattr(assembly, "members") else assembly
            scores = {k: entry.get("value") for k, entry in evaluate(single, n=100).items()}
        clock = ("seconds", "samples_per_second")
        rows = [{k: v for k, v in row.items() if k not in clock} for row in assembly.state.history]
        found.append([(k, v) for row in (*rows, scores) for k, v in row.items() if v is not None and v == v])
    assert len(found[0]) > 20 and [k for k, _ in found[0]] == [k for k, _ in found[1]], found
    # Torch takes other kernels for convolutions there: float32's rounding, 6e-8, times what three rounds cancel.
    off = [(k, a, b) for (k, a), (_, b) in zip(*found, strict=True) if a != b and abs(a - b) > 1e-5 + 1e-5 * abs(b)]
    assert not off, off


def row(name):
    """Set up a row there, compare its sides, and play each once."""
    every = {row.name: row for row in (*gpu.rows(NAME), *ensembles.rows(NAME))}
    with Elsewhere():
        contest = every[name].make("tiny")
        assert all(math.isfinite(found) and found < 1e-9 for found in contest.agree().values())
        for side in contest.sides.values():
            side.run()
            if side.logging is not None:
                side.logging()


def mistake():
    """Let a network there meet a tensor of the CPU."""
    with Elsewhere():
        torch.nn.Linear(2, 1, device=NAME)(torch.ones(3, 2))


if __name__ == "__main__":
    # The classes of this file, not those of the module that Python runs under another name.
    from tests.support import other_device

    other_device.register()
    for case in sys.argv[1:]:
        kind, *words = case.split()
        getattr(other_device, kind)(*words)
