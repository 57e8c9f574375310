r"""
Two parallel lines: JS against W1
=================================

Data on the segment :math:`(0, u)`, a model on :math:`(\theta, u)`, u uniform on [0, 1] (Arjovsky, Chintala, Bottou
2017, example 1). The laws share no point unless theta is zero, so

.. math:: \mathrm{JS}(p_d, p_\theta) = \log 2 \text{ for every } \theta \ne 0, \qquad W_1(p_d, p_\theta) = |\theta| .

The first says nothing about where to go, the second everything. Both are read off trained critics here.
"""

import matplotlib.pyplot as plt
import torch

import se_framework as se
from divergences import JensenShannon, Wasserstein1
from models import GroupSortCritic, MLPCritic, Model, PushForward
from se_framework.data import TensorData


class Segment(Model):
    """The law of (theta, u)."""

    has_rsample = True

    def __init__(self, event_shape=(2,), theta=1.0):
        super().__init__(event_shape)
        self.theta = torch.nn.Parameter(torch.tensor(theta), requires_grad=False)

    def forward(self, context=None):
        """Return the law: u = Phi(z), z normal."""

        def push(z):
            return torch.cat((self.theta.expand(len(z), 1), torch.special.ndtr(z)), 1)

        return PushForward(push, (1,), (2,), like=self.theta)


torch.manual_seed(0)
data = TensorData(torch.stack((torch.zeros(4000), torch.rand(4000)), 1), standardize=False)

# %%
# One critic for each theta and each of the two equations. They differ in D and in the class of f: any perceptron for
# the Jensen-Shannon divergence, a 1-Lipschitz one (by its layers, GroupSort) for W1.

thetas = [-1.5, -1.0, -0.5, -0.2, 0.2, 0.5, 1.0, 1.5]
kinds = {
    "JS": (JensenShannon, lambda: MLPCritic((2,), width=32, depth=2), 100),
    "W1": (Wasserstein1, lambda: GroupSortCritic((2,), width=16, depth=2), 100),
}
found = {name: {"value": [], "slope": []} for name in kinds}
for name, (divergence, critic, rounds) in kinds.items():
    for theta in thetas:
        model = Segment(theta=theta)
        equation = se.StandardEquation(
            model=model, metric=se.Metric(critic()), divergence=divergence(), auxiliary=se.Dual()
        )
        fast = se.make_players(equation, lambda parameters: torch.optim.Adam(parameters, lr=2e-2))
        state = se.TrainState(equation, fast)
        se.train(state, data, rounds=rounds, batch_size=256, log_every=0, progress=False)
        model.theta.requires_grad_(True)
        value = equation.scalar(data.held_out(1000), equation.sample(1000))
        (slope,) = torch.autograd.grad(value, model.theta)
        found[name]["value"].append(value.item())
        found[name]["slope"].append(slope.item())

# %%
# The lines are the theory, the points what was trained; on the right, the slope that a step of theta would get.

line = torch.linspace(-1.6, 1.6, 321)
exact = {"JS": (torch.full((321,), 2.0).log(), torch.zeros(321)), "W1": (line.abs(), line.sign())}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for (name, theory), color in zip(exact.items(), ("#d1603d", "#3b6ea8"), strict=True):
    for ax, curve, key in zip(axes, theory, ("value", "slope"), strict=True):
        for side in (line < 0, line > 0):
            ax.plot(line[side], curve[side], color=color, alpha=0.5)
        ax.plot(thetas, found[name][key], "o", color=color, label=name)
axes[0].plot([0], [0], "s", color="#d1603d", markersize=4)
axes[0].axhline(torch.tensor(2.0).log(), color="grey", linewidth=0.8, linestyle=":")
axes[0].text(0, 0.73, "log 2", fontsize=8, color="#555555", ha="center")
axes[0].set(xlabel=r"$\theta$", title="distance of data and model")
axes[1].set(xlabel=r"$\theta$", title=r"its slope in $\theta$")
axes[1].legend(loc="upper left")
plt.show()

for name in kinds:
    print(
        name,
        "values",
        [round(v, 2) for v in found[name]["value"]],
        "slopes",
        [round(s, 2) for s in found[name]["slope"]],
    )
