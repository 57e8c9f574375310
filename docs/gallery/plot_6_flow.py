r"""
A flow, coupling by coupling
============================

A flow carries N(0, I) to the data by a stack of maps whose Jacobians are triangular, so its density is known exactly.
Real NVP's couplings (Dinh, Sohl-Dickstein, Bengio 2017) move one coordinate by an affine function whose scale and shift
are read off the other. In the equation this is D = cross-entropy with q = data, without a metric: maximum likelihood.
"""

import copy

import matplotlib.pyplot as plt
import torch

import se_framework as se
from divergences import CrossEntropy
from models import RealNVP
from se_framework.data import Moons

torch.manual_seed(0)
data, couplings = Moons(), 8
model = RealNVP((2,), couplings=couplings, width=32)
equation = se.StandardEquation(model=model, divergence=CrossEntropy(), auxiliary=se.Empirical(), alpha=1.0)
state = se.TrainState(equation, se.make_players(equation, lambda weights: torch.optim.Adam(weights, lr=5e-3)))
se.train(state, data, rounds=500, batch_size=512, log_every=0, progress=False)
held_out = data.held_out(4000).x
with torch.no_grad():
    print(f"held-out NLL {-model().log_prob(held_out.float()).mean().item():.3f} nats, entropy {data.entropy:.3f}")

# %%
# The same flow without its last couplings is a flow too. Two more at a time (so that each coordinate moves once), with
# its exact density, and points that keep the colour of the place they start from:


def first(number):
    """Return the flow of the first couplings from the latent end."""
    part = copy.deepcopy(model)
    part.conditioners = part.conditioners[couplings - number :]
    return part()


z = torch.randn(800, 2)
angle = torch.atan2(z[:, 1], z[:, 0])
figure, axes = plt.subplots(2, 3, figsize=(9, 6), layout="constrained")
across, up = torch.linspace(-3, 3, 121), torch.linspace(-3, 3, 121)
grid = torch.cartesian_prod(across, up)
with torch.no_grad():
    for ax, number in zip(axes.flat, (0, 2, 4, 6, 8), strict=False):
        law = first(number) if number else None
        x = z if law is None else law.push(z)[0]
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(grid).sum(1)
        density = (normal if law is None else law.log_prob(grid)).exp().view(121, 121).T
        levels = [float(density.max()) * share for share in (0.02, 0.1, 0.3, 0.6, 1.0)]
        ax.contourf(across, up, density, levels=levels, colors=("#eeeeee", "#dddddd", "#c8c8c8", "#b0b0b0"))
        ax.scatter(*x.T, c=angle, cmap="hsv", s=2)
        ax.set_title("N(0, I)" if law is None else f"after {number} couplings", fontsize=10)
axes[1, 2].scatter(*held_out[:800].T, s=2, color="#3b6ea8")
axes[1, 2].set_title("data", fontsize=10)
for ax in axes.flat:
    ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])
plt.show()
