r"""
A saturated critic and a linear one
===================================

Two Gaussians far from each other, as in figure 2 of Arjovsky, Chintala, Bottou 2017: the GAN's discriminator is 1 on
one, 0 on the other and flat on both; the critic of W1 is a line of slope one, and hands its slope to every sample.
"""

import matplotlib.pyplot as plt
import torch

import se_framework as se
from divergences import GAN, Wasserstein1
from models import Affine, GroupSortCritic, MLPCritic
from se_framework.data import GaussianMixture

torch.manual_seed(0)
data = GaussianMixture(means=[-3.0], sigmas=[0.5])
model = Affine((1,), init_scale=0.5)
model.loc.data.fill_(3.0)
model.requires_grad_(False)
x = torch.linspace(-6, 6, 481)[:, None]


def critic_of(divergence, network, rounds=300):
    """Train the critic alone and return its outputs and slopes on the line."""
    metric = se.Metric(network)
    equation = se.StandardEquation(model=model, metric=metric, divergence=divergence, auxiliary=se.Dual())
    players = se.make_players(equation, lambda parameters: torch.optim.Adam(parameters, lr=5e-3))
    state = se.TrainState(equation, players)
    se.train(state, data, rounds=rounds, batch_size=512, log_every=0, progress=False)
    value = equation.scalar(data.held_out(20_000), equation.sample(20_000)).item()
    with torch.no_grad():
        return value, metric(x), metric.gradient(x)


gan_value, v, v_slope = critic_of(GAN(), MLPCritic((1,), width=64, depth=2))
w1_value, f, f_slope = critic_of(Wasserstein1(), GroupSortCritic((1,), width=32, depth=2))

# %%
# The discriminator is sigmoid(v); the critic of W1 is fixed up to a constant, which is taken off. Theta's slope at a
# sample x is that of :math:`\log(1 - D(x))` in the one game, of :math:`-f(x)` in the other.

d = v.sigmoid()
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
p_d, p = data.log_prob(x.double()).exp(), model().log_prob(x).exp()
for ax in axes:
    ax.fill_between(x[:, 0], p_d, color="#3b6ea8", alpha=0.25, label="data")
    ax.fill_between(x[:, 0], p, color="#d1603d", alpha=0.25, label="model")
    ax.set(xlabel="x")
axes[0].plot(x, d, color="#a02020", label="GAN: D(x)")
axes[0].plot(x, (f - f[len(f) // 2]) / 6 + 0.5, color="#3d8b55", label="W1: f(x)/6 + 1/2")
axes[0].set(ylim=(-0.6, 1.6), title="what the critic says")
axes[1].plot(x, (d * v_slope[:, 0]).abs(), color="#a02020", label="GAN: slope of log(1 - D)")
axes[1].plot(x, f_slope.abs(), color="#3d8b55", label="W1: slope of f")
axes[1].set(ylim=(0, 1.9), title="what theta gets from a sample at x")
for ax in axes:
    ax.legend(fontsize=8, loc="upper center", ncols=2, framealpha=1)
plt.show()

# %%
# W1 of the two is 6, and the critic reads it; the GAN's value is at its upper bound 0, which is 2 JSD - log 4 at
# JSD = log 2, and says no more than that they differ.

exact = Wasserstein1().exact(torch.distributions.Normal(-3.0, 0.5), torch.distributions.Normal(3.0, 0.5))
print(f"W1: {w1_value:.3f}, exact {exact.item():.3f}")
print(f"GAN: {gan_value:.4f}")
means = [float(torch.trapezoid(p * slope.abs(), x[:, 0])) for slope in (d * v_slope[:, 0], f_slope[:, 0])]
print("mean slope on the model's samples: GAN {:.1e}, W1 {:.2f}".format(*means))
