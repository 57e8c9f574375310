"""Data sets of a user's own, as torch has them."""

import random
import time

import numpy as np
import torch
from torch.utils.data import Dataset

N = 23
"""Rows: 21 for training, so that batches of 5 and 8 cross the end of an epoch."""


class Plain(Dataset):
    """Rows that are always the same, with a label."""

    def __init__(self, rows=N):
        self.x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], i % 3


class Augmented(Plain):
    """Draws on all three global generators."""

    def __getitem__(self, i):
        noise = [float(torch.rand(())), np.random.rand(), random.random()]
        return torch.cat([self.x[i], torch.tensor([i, *noise])])


class Slow(Plain):
    """A row takes a millisecond."""

    seconds = 1e-3

    def __getitem__(self, i):
        time.sleep(self.seconds)
        return self.x[i]


class Slower(Slow):
    """A run waits for its rows nearly all the time."""

    seconds = 20e-3
