r"""Claims on flows: Glow's layers as their authors' code has them, its Jacobian and inverse; MAF and IAF.

The other side is numpy: convolutions by windows of a padded image, in the order (example, channel, row, column), and
determinants of Jacobians taken column by column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import jacrev

from models.autoregressive import AutoregressiveFlow
from models.glow.model import Glow
from models.laws import Particles
from se_framework.verify.claims import Comparison, at_most, claim, equal

GLOW = "Kingma, Dhariwal 2018, Glow, table 1 and the authors' code"
ROUNDING = 1e-10
"""Spacing 2e-16 times 24 steps, each of which may make an error ten times as large: 1e-12, with room."""
Array = np.ndarray


def moved(model: nn.Module, size: float = 0.03) -> Any:
    """Return the model away from its start, where couplings and priors are the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model


def small_glow(shape: tuple[int, ...] = (2, 4, 8), **settings: Any) -> Glow:
    """Return a Glow that has seen a batch, and was then moved."""
    model = Glow(shape, **{"levels": 2, "steps": 2, "width": 5, "bins": 3, **settings})
    with torch.no_grad():
        labels = torch.arange(32) % model.classes if model.classes else None
        model.prepare(Particles(1 + 3 * torch.randn(32, *shape), context=labels))
    return moved(model)


# -- Glow by numpy ----------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What the reference computes.

    Attributes:
        noise: shape (N, d).
        ladj: log |det dz/dx|, shape (N,).
        normalised: what every actnorm returned, shape (N, C, H, W) each.
    """

    noise: Array
    ladj: Array
    normalised: list[Array]


def convolved(x: Array, kernel: Array, edge: Array) -> Array:
    """Return the 3 x 3 cross-correlation of images and of a channel that is 1 in the padding and 0 inside."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    mask = np.pad(np.zeros((len(x), 1, *x.shape[2:])), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1.0)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([padded, mask], 1), (3, 3), (2, 3))
    return np.einsum("bchwij,ncij->bnhw", windows, np.concatenate([kernel, edge[:, None]], 1))


def as_kernel(weight: Array) -> Array:
    """Return weights (n, 9, c) as a kernel (n, c, 3, 3)."""
    return weight.reshape(len(weight), 3, 3, -1).transpose(0, 3, 1, 2)


def actnorm(x: Array, bias: Array, log_scale: Array) -> Array:
    """Centre, then scale by exp(3 l)."""
    return (x + bias[None, :, :, None]) * np.exp(3 * log_scale)[None, :, :, None]


def arrays(module: nn.Module) -> dict[str, Array]:
    """Return parameters and buffers as arrays."""
    return {name: t.detach().cpu().numpy() for name, t in [*module.named_parameters(), *module.named_buffers()]}


def rotation(w: dict[str, Array], k: int) -> Array:
    """Return W of step k: P L (U + diag(sign exp(t))), or W itself."""
    if "mixing.weight" in w:
        return w["mixing.weight"][k]
    lower = np.tril(w["mixing.lower"][k], -1) + np.eye(w["mixing.lower"].shape[1])
    upper = np.triu(w["mixing.upper"][k], 1) + np.diag(w["mixing.sign"][k] * np.exp(w["mixing.log_diagonal"][k]))
    return w["mixing.permutation"][k] @ lower @ upper


def network(w: dict[str, Array], k: int, a: Array, seen: list[Array]) -> Array:
    """Return what the network of step k says: conv 3 x 3, actnorm, ReLU, conv 1 x 1, actnorm, ReLU, zero conv 3 x 3."""
    c = {name.removeprefix("conditioner."): value for name, value in w.items() if name.startswith("conditioner.")}
    h = convolved(np.clip(a, -20, 20), as_kernel(c["first"][k]), c["first_edge"][k].reshape(-1, 3, 3))
    seen.append(actnorm(h, c["bias"][0, k], c["log_scale"][0, k]))
    h = np.einsum("ij,bjhw->bihw", c["middle"][k], np.maximum(seen[-1], 0))
    seen.append(actnorm(h, c["bias"][1, k], c["log_scale"][1, k]))
    kernel = as_kernel(c["last"][k].transpose(1, 0, 2)[:, ::-1])  # held by where it adds, not by where it reads
    h = convolved(np.maximum(seen[-1], 0), kernel, c["last_edge"][k][:, ::-1].reshape(-1, 3, 3))
    return (h + c["last_bias"][k][None, :, :, None]) * np.exp(3 * c["last_log_scale"][k])[None, :, :, None]


def glow_by_numpy(model: Glow, x: Array) -> Seen:
    """Return noise, log-determinant and actnorms of an affine or additive Glow without labels."""
    x = x.reshape(len(x), *model.image_shape)
    noises, normalised, ladj = [], [], np.zeros(len(x))
    for number, level in enumerate(model.levels):
        w, (n, c, height, width) = arrays(level), x.shape
        x = x.reshape(n, c, height // 2, 2, width // 2, 2).transpose(0, 1, 3, 5, 2, 4)
        x = x.reshape(n, 4 * c, height // 2, width // 2)
        half, pixels = 2 * c, height * width // 4
        for k in range(len(w["mixing.bias"])):
            x = actnorm(x, w["mixing.bias"][k], w["mixing.log_scale"][k])
            normalised.append(x)
            matrix = rotation(w, k)
            ladj += pixels * (3 * w["mixing.log_scale"][k].sum() + np.linalg.slogdet(matrix)[1])
            x = np.einsum("ij,bjhw->bihw", matrix, x)
            said = network(w, k, x[:, :half], normalised)
            b = x[:, half:] + said[:, :half]
            if said.shape[1] > half:
                scale = 1e-3 + (1 - 1e-3) / (1 + np.exp(-said[:, half:] - 2))
                b, ladj = b * scale, ladj + np.log(scale).sum((1, 2, 3))
            x = np.concatenate([x[:, :half], b], 1)
        last = number == len(model.levels) - 1
        stays, leaves = (x[:, :0], x) if last else (x[:, :half], x[:, half:])
        kernel = w.get("prior.weight", np.zeros((len(w["prior.edge"]), 9, 0)))
        said = convolved(np.clip(stays, -20, 20), as_kernel(kernel), w["prior.edge"].reshape(-1, 3, 3))
        said = (said + w["prior.bias"][None, :, :, None]) * np.exp(3 * w["prior.log_scale"])[None, :, :, None]
        loc, log_scale = np.split(said, 2, 1)
        log_scale = 4 * np.tanh(log_scale / 4)
        noises.append(((leaves - loc) * np.exp(-log_scale)).reshape(n, -1))
        ladj, x = ladj - log_scale.sum((1, 2, 3)), stays
    return Seen(np.concatenate(noises, 1), ladj, normalised)


# -- claims -----------------------------------------------------------------------------------------------------------


@claim("Glow is what its authors' code has: actnorms, 1 x 1 convolutions, couplings, priors, padding channels", GLOW)
def glow_is_its_definition() -> Iterator[Comparison]:
    """Noise and log-determinant of points, ours by products of matrices, theirs by numpy's windows."""
    x = torch.randn(5, 2, 4, 8)
    for coupling in ("affine", "additive"):
        for mixing in ("lu", "plain"):
            model = small_glow(coupling=coupling, mixing=mixing)
            (z, ladj), want = model().pull(x), glow_by_numpy(model, x.cpu().numpy())
            yield equal(f"{coupling}, {mixing}: noise", z, want.noise, ROUNDING)
            yield equal(f"{coupling}, {mixing}: log-determinant", ladj, want.ladj, ROUNDING)


def one_level(label: str, **settings: Any) -> Iterator[Comparison]:
    """Compare the log-determinant of a level of one step, and of its inverse, with Jacobians."""
    model = small_glow((1, 4, 6), levels=1, steps=1, **settings)
    x, labels = torch.randn(3, 1, 4, 6), torch.arange(3) if model.classes else None
    law = model(labels)
    z, ladj = law.pull(x)
    # No example is coupled to another: the slopes of the sum over examples are those of each.
    jacobians = jacrev(lambda points: law.pull(points)[0].sum(0))(x).reshape(z.shape[1], len(x), -1).transpose(0, 1)
    determinants = np.linalg.slogdet(jacobians.detach().cpu().numpy())[1]
    yield equal(label, ladj, determinants, ROUNDING)
    yield equal(f"{label}: inverse", law.push(z)[0], x, ROUNDING)
    yield equal(f"{label}: log-determinant of the inverse", law.push(z)[1], -ladj, ROUNDING)


@claim("the log-determinants of Glow's layers are those of their Jacobians", GLOW)
def glow_layers_have_their_jacobians() -> Iterator[Comparison]:
    """A level of one step with every kind of coupling and 1 x 1 convolution, with and without labels."""
    for coupling in ("affine", "additive", "spline"):
        yield from one_level(f"{coupling}, lu", coupling=coupling)
    yield from one_level("affine, plain", mixing="plain")
    yield from one_level("affine, labels", classes=3)


@claim("Glow is inverted to 1e-10 through 3 levels of 8 steps, and log p follows", GLOW)
def glow_is_inverted() -> Iterator[Comparison]:
    """Noise to images and back, and images to noise and back."""
    for coupling in ("affine", "additive", "spline"):
        model = moved(Glow((1, 8, 16), levels=3, steps=8, width=6, coupling=coupling, bins=4))
        with torch.no_grad():
            law = model()
            for label, there, back in (("noise", law.push, law.pull), ("image", law.pull, law.push)):
                start = torch.randn(6, 128) if label == "noise" else torch.randn(6, 1, 8, 16)
                end, ladj = there(start)
                again, minus = back(end)
                yield at_most(f"{coupling}, {label}", (again - start).abs().max(), 0.0, ROUNDING)
                yield equal(f"{coupling}, {label}: log-determinants cancel", ladj, -minus, ROUNDING)


@claim("after the first batch every actnorm returns mean 0 and variance 1 in each channel, hidden ones too", GLOW)
def actnorm_first_batch() -> Iterator[Comparison]:
    """Statistics of the reference's actnorms on the batch that a new model was prepared with; then it is fixed."""
    x, model = 1 + 3 * torch.randn(40, 2, 4, 8), Glow((2, 4, 8), levels=2, steps=3, width=5)
    with torch.no_grad():
        model.prepare(Particles(x))
    for i, out in enumerate(glow_by_numpy(model, x.cpu().numpy()).normalised):
        yield equal(f"actnorm {i}: mean", out.mean((0, 2, 3)), np.zeros(out.shape[1]), ROUNDING)
        yield equal(f"actnorm {i}: variance", out.var((0, 2, 3)), np.ones(out.shape[1]), ROUNDING)


@claim("a MAF is the inverse of the IAF of the same weights: each samples by the other's density pass", "Papamakarios, "
       "Pavlakou, Murray 2017, section 3.2")  # fmt: skip
def maf_is_the_inverse_of_iaf() -> Iterator[Comparison]:
    """Both directions, with their log-determinants; and one is inverted."""
    maf = moved(AutoregressiveFlow((6,), layers=3, width=9), 0.3)
    iaf = AutoregressiveFlow((6,), "sampling", layers=3, width=9)
    with torch.no_grad():
        for flow in (maf, iaf):
            flow.loc.zero_(), flow.log_scale.zero_()  # the affine map is at the data end of both
    iaf.load_state_dict(maf.state_dict())
    x = torch.randn(50, 6)
    for label, one, other in (("density of MAF", maf().pull, iaf().push), ("samples of MAF", maf().push, iaf().pull)):
        yield equal(f"{label} = the other's: points", one(x)[0], other(x)[0].detach().cpu().numpy(), ROUNDING)
        yield equal(f"{label} = the other's: determinants", one(x)[1], other(x)[1].detach().cpu().numpy(), ROUNDING)
    yield equal("a MAF is inverted", maf().push(maf().pull(x)[0])[0], x, ROUNDING)


@claim("the Jacobian of a masked autoregressive map is triangular in its order, its determinant exact", "Germain, "
       "Gregor, Murray, Larochelle 2015, section 4; Papamakarios, Pavlakou, Murray 2017, eqs. (3)-(5)")  # fmt: skip
def autoregressive_jacobian() -> Iterator[Comparison]:
    """The numbers that move a coordinate depend on those before it and on no other; log |det| by numpy."""
    for reverse in (False, True):
        flow = moved(AutoregressiveFlow((6,), layers=2 if reverse else 1, width=9), 0.3)
        net, x = flow.nets[-1], torch.randn(6)
        said = jacrev(lambda v, net=net: net(v[:, None])[:, 0])(x).reshape(2, 6, 6).detach().cpu().numpy()
        beyond = np.tril(np.ones((6, 6))) if reverse else np.triu(np.ones((6, 6)))
        yield equal(f"reversed {reverse}: entries that must vanish", said * beyond, np.zeros_like(said), 1e-300)
        jacobian = jacrev(lambda v, flow=flow: flow().pull(v[None])[0][0])(x).detach().cpu().numpy()
        yield equal(f"reversed {reverse}: determinant", flow().pull(x[None])[1][0], np.linalg.slogdet(jacobian)[1])
