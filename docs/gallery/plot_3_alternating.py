r"""
A game on a line, round by round
================================

Figure 1 of Goodfellow et al. 2014, as it happens: the density of the data, that of the generator, and the critic
between them. The generator is a mixture of Gaussians here, whose density is known at every round, so nothing in the
picture is estimated from samples.
"""

import matplotlib.pyplot as plt
import torch
from film import Film

import se_framework as se
from divergences import GAN
from models import GaussianMixture, MLPCritic
from se_framework import data as laws

torch.manual_seed(1)
data = laws.GaussianMixture(means=[-1.5, 2.0], sigmas=[0.4, 0.8], weights=[0.4, 0.6])
model = GaussianMixture((1,), components=3, init_scale=1.0)
metric = se.Metric(MLPCritic((1,), width=32, depth=2), se.R1(0.1))
equation = se.StandardEquation(model=model, metric=metric, divergence=GAN(), auxiliary=se.Dual())


def adam(parameters):
    """Adam without momentum, which games dislike."""
    return torch.optim.Adam(parameters, lr=2e-2, betas=(0.0, 0.99))


players = se.make_players(equation, adam, phi={"steps": 3})
state = se.TrainState(equation, players)

# %%
# In a round phi makes three steps, then theta one. ``train`` is called again and again for some more rounds; between
# the calls the objects can be read.

x = torch.linspace(-4.5, 5.5, 401)[:, None]
p_d = data.log_prob(x.double()).exp()
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
figure.subplots_adjust(left=0.05, right=0.98, bottom=0.14, top=0.9, wspace=0.2)
film = Film("densities of data and generator, the discriminator and the equation's value, round by round")
rounds, values = [], []
for until in [*range(0, 60, 5), *range(60, 300, 20), 300]:
    if until:
        se.train(state, data, rounds=until, horizon=300, batch_size=256, log_every=0, progress=False)
    with torch.no_grad():
        p, v = model().log_prob(x).exp(), metric.log_ratio(x)
    value = equation.scalar(data.held_out(20_000), equation.sample(20_000)).item()
    rounds.append(until), values.append(value)
    for ax in axes:
        ax.clear()
    axes[0].fill_between(x[:, 0], p_d, color="#3b6ea8", alpha=0.3, label="data")
    axes[0].fill_between(x[:, 0], p, color="#d1603d", alpha=0.3, label="generator")
    axes[0].plot(x, v.sigmoid(), color="#3d8b55", label="discriminator")
    axes[0].axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axes[0].set(ylim=(0, 1.05), xlabel="x", title=f"round {until}")
    axes[0].legend(loc="upper right", fontsize=8)
    axes[1].axhline(-torch.tensor(4.0).log(), color="grey", linewidth=0.8, linestyle=":")
    axes[1].plot(rounds, values, color="black", marker=".")
    axes[1].text(298, -1.4, "-log 4: nothing can be told apart", fontsize=8, va="top", ha="right", color="#555555")
    axes[1].set(xlim=(-5, 305), ylim=(-1.45, -1.05), xlabel="round", title="$E_{p_d} f - E_p h^*(f)$ on held-out data")
    film.add(figure)
film

# %%
# The discriminator is first high where the data is and the generator is not; theta moves its mass there along the
# slope; the difference goes, and what is left of the discriminator is the line at 1/2 (the
# picture is the last frame). In numbers:

with torch.no_grad():
    p = model().log_prob(x).exp()
print(f"total variation at the end: {0.5 * torch.trapezoid((p - p_d).abs(), x[:, 0]).item():.3f}")
print(f"value {values[-1]:.4f}, and -log 4 is {-torch.tensor(4.0).log().item():.4f}")
