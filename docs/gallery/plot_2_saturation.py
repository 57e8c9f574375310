r"""
Minimax against non-saturating
==============================

Early in training the critic tells samples from data with ease: :math:`D(G(z))` is near 0. What theta then gets is the
slope of its cost there (Goodfellow et al. 2014, section 3). In this framework both costs are choices of the divergence
through which theta sees the critic: ``gan`` is the minimax game, ``softened_reverse_kl`` the non-saturating one, ``kl``
the maximum-likelihood cost of Goodfellow's tutorial (2016, figure 16).
"""

import matplotlib.pyplot as plt
import torch

import se_framework as se
from divergences import GAN, KL, SoftenedReverseKL
from models import Affine, MLPCritic

# %%
# Theta's part of the scalar at a critic's output v is :math:`-h^*(f(v))`: the method ``conjugate``, for every
# f-divergence. Over :math:`D(G(z)) = \sigma(v)`, up to a constant:

d = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
v = d.logit().requires_grad_()
costs = {
    "minimax: log(1 - D)": (GAN(), "#d1603d"),
    "non-saturating: -log D": (SoftenedReverseKL(), "#3d8b55"),
    "maximum likelihood: -D/(1 - D)": (KL(), "#3b6ea8"),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for label, (divergence, color) in costs.items():
    cost = -divergence.conjugate(v)
    (slope,) = torch.autograd.grad(cost.sum(), v)
    middle = cost[len(d) // 2].item()
    axes[0].plot(d, cost.detach() - middle, color=color, label=label)
    axes[1].plot(d, slope.abs(), color=color, label=label)
axes[0].set(xlabel="D(G(z))", ylim=(-6, 6), title="cost of one sample, 0 at D = 1/2")
axes[1].set(xlabel="D(G(z))", ylim=(0, 2), title="size of its slope in the logit v")
axes[0].legend(fontsize=8)
for ax in axes:
    ax.grid(alpha=0.3)
plt.show()

# %%
# The slopes are D, 1 - D and D/(1 - D): the minimax cost is flat exactly where samples are rejected with certainty, and
# the maximum-likelihood cost lives on the few samples that are taken for real.
#
# What that does to a step of theta: a model at distance m from the data, with the critic at its optimum for that m.

z = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
distances = torch.linspace(0.25, 8.0, 32)
norms = {label: [] for label in costs}
for m in distances.tolist():
    for label, (divergence, _) in costs.items():
        shift = torch.tensor(m, dtype=torch.float64, requires_grad=True)
        samples = z + shift
        optimal = m * m / 2 - m * samples  # log N(x; 0, 1) - log N(x; m, 1), the critic held fixed
        (slope,) = torch.autograd.grad(-divergence.conjugate(optimal).mean(), shift)
        norms[label].append(abs(slope.item()))

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for label, (_, color) in costs.items():
    ax.plot(distances, norms[label], color=color, label=label)
ax.plot(distances, distances, color="#3b6ea8", linestyle=":", label="its mean, m")
ax.set(yscale="log", ylim=(1e-5, 30), xlabel="distance m of N(0, 1) and N(m, 1)", ylabel="|slope of theta's cost in m|")
ax.grid(alpha=0.3)
ax.legend(fontsize=8)
plt.show()

# %%
# The minimax cost dies like the overlap of the two laws. The maximum-likelihood cost has the slope m in the mean, yet
# among 4,000 samples the few that carry it are missing beyond m = 3: it is unbiased and of no use there. The
# non-saturating cost stays. As configurations the three are one word apart::
#
#     se-train experiment=vanilla_gan
#     se-train experiment=nonsaturating_gan
#     se-train experiment=vanilla_gan divergence@players.theta.view=kl
#
# The view belongs to the player: the same critic is seen through another D.

model, critic = Affine((1,)), MLPCritic((1,), width=8, depth=1)
equation = se.StandardEquation(model=model, metric=se.Metric(critic), divergence=GAN(), auxiliary=se.Dual())
players = se.make_players(equation, theta={"view": SoftenedReverseKL()})
print([(player.name, type(player.view).__name__) for player in players])
