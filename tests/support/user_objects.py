"""What a user might bring, named in configurations by its path."""

import torch


def convex(u):
    """The generator h of ``divergence=f``."""
    return (u - 1).square() + torch.xlogy(u, u)
