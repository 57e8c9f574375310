r"""
The optimal discriminator
=========================

For a fixed model the best discriminator of a GAN is known (Goodfellow et al. 2014, proposition 1),

.. math::
    D^\star(x) = \frac{p_d(x)}{p_d(x) + p_\theta(x)}, \qquad
    v^\star = \log\frac{D^\star}{1 - D^\star} = \log\frac{p_d}{p_\theta} ,

so a trained one can be held against it. Here the model stands still, and :math:`\phi` alone plays.
"""

import matplotlib.pyplot as plt
import torch

import se_framework as se
from divergences import GAN
from models import Affine, MLPCritic
from se_framework.data import GaussianMixture

torch.manual_seed(0)
data = GaussianMixture(means=[-1.0, 2.0], sigmas=[0.25, 1.4], weights=[0.33, 0.67])
model = Affine((1,), init_scale=1.8)  # N(0, 1.8^2)
model.loc.data.fill_(1.0)
model.requires_grad_(False)  # theta has no parameters left, so it is no player

# %%
# The equation with D = GAN and the dual q: the critic ascends on :math:`E_{p_d}[f] - E_p[h^*(f)]`, whose maximum is
# :math:`2\,\mathrm{JSD}(p_d, p) - \log 4`. After 40 rounds it is far from that, after 1,200 it is there.

metric = se.Metric(MLPCritic((1,), width=64, depth=3))
equation = se.StandardEquation(model=model, metric=metric, divergence=GAN(), auxiliary=se.Dual())
state, x = se.TrainState(equation), torch.linspace(-5, 7, 601)[:, None]
outputs = {}
for rounds in (40, 1200):
    se.train(state, data, rounds=rounds, horizon=1200, batch_size=512, log_every=0, progress=False)
    outputs[rounds] = metric.log_ratio(x).detach()

# %%
# What it is held against needs no training: both densities are known.

p_d, p = data.log_prob(x.double()).exp(), model().log_prob(x).detach().exp().double()
best = p_d / (p_d + p)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].fill_between(x[:, 0], p_d, color="#3b6ea8", alpha=0.25, label="$p_d$")
axes[0].fill_between(x[:, 0], p, color="#d1603d", alpha=0.25, label=r"$p_\theta$")
axes[0].plot(x, best, color="black", linewidth=3, alpha=0.35, label=r"$p_d/(p_d+p_\theta)$")
for (rounds, v), style in zip(outputs.items(), (":", "-"), strict=True):
    axes[0].plot(x, v.sigmoid(), "#3d8b55", linestyle=style, label=f"trained, round {rounds}")
    axes[1].plot(x, v, "#3d8b55", linestyle=style, label=f"trained, round {rounds}")
axes[0].set(xlabel="x", ylim=(0, 1.25), title="discriminator, between 0 and 1")
axes[1].plot(x, (p_d / p).log(), color="black", linewidth=3, alpha=0.35, label=r"$\log p_d/p_\theta$")
axes[1].set(xlabel="x", ylim=(-4, 2), title="its logit v: the log-ratio of the densities")
axes[0].legend(fontsize=8, ncols=2, loc="upper center")
axes[1].legend(fontsize=8, loc="lower right")
plt.show()

# %%
# They agree where there are points. In the tails neither law has any, and no critic can know its value there: an
# error of v counts as much as the densities do. On points of both laws it is small, and the dual is tight:

gap = (outputs[1200].double() - (p_d / p).log()).abs()
print(f"mean |v - log p_d/p| under p_d: {float((gap * p_d).sum() / p_d.sum()):.3f}")
value = equation.scalar(data.held_out(100_000), equation.sample(100_000))
exact = torch.trapezoid(p_d * best.log() + p * (1 - best).log(), x[:, 0].double())
print(f"E_pd f - E_p h*(f): {value.item():.4f}; 2 JSD - log 4 by quadrature: {exact.item():.4f}")
