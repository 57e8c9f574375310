r"""The classifier two-sample test: can samples be told from real points?

Half of both samples, as many of each, trains a classifier; its accuracy t on the other half is the score. Here it is
that of the k nearest neighbours with :math:`k=\lfloor\sqrt{n_{train}}\rfloor` (Lopez-Paz and Oquab, "Revisiting
classifier two-sample tests", ICLR 2017, section 3 and 5: C2ST-KNN), which has nothing to tune. At q = p the mean of t
is 1/2, whatever was learnt; the p-value is that of t correct answers or more, by luck, of as many coins. As the test
half holds as many samples as real points, the spread of t is at most theirs, so the p-value is never too small.
"""

from __future__ import annotations

import torch
from torch import Tensor

from se_framework.evaluation.pair import Figure, Pair, at_least
from se_framework.randomness import generator


def c2st(pair: Pair) -> Figure:
    """Return the classifier's accuracy on the half that it was not trained on, with its error and p-value."""
    at_least(pair.pairs, 8)
    a, b = pair.view
    order = torch.randperm(len(a), generator=generator(pair.seed, 0, "scores/c2st"))
    half = len(a) // 2
    accuracy, se, p_value = told_apart(a[order[:half]], b[order[:half]], a[order[half:]], b[order[half:]])
    said = {"p_value": p_value, "classifier": f"{neighbours(2 * half)} nearest neighbours, trained on half"}
    return Figure(accuracy, se, pair.pairs, said, 0.5)


def told_apart(x: Tensor, y: Tensor, x_new: Tensor, y_new: Tensor) -> tuple[float, float, float]:
    """Train on samples x and real points y, look at others, and return accuracy, standard error and p-value.

    Args:
        x: shape (n, k).
        y: shape (n, k).
        x_new: shape (m, k).
        y_new: shape (m, k).
    """
    from scipy.stats import binom
    from sklearn.neighbors import KNeighborsClassifier

    n, m = len(x), len(x_new)
    labels = torch.arange(2).repeat_interleave(n)
    model = KNeighborsClassifier(neighbours(2 * n)).fit(torch.cat([x, y]).numpy(), labels.numpy())
    right = torch.as_tensor(model.predict(torch.cat([x_new, y_new]).numpy())) == torch.arange(2).repeat_interleave(m)
    of_samples, of_real = (float(part.double().mean()) for part in right.split(m))
    se = ((of_samples * (1 - of_samples) + of_real * (1 - of_real)) / (4 * m)) ** 0.5
    return (of_samples + of_real) / 2, se, float(binom.sf(int(right.sum()) - 1, 2 * m, 0.5))


def neighbours(n: int) -> int:
    """Return the number of neighbours that vote among n points: the root, made odd so that there are no ties."""
    return max(1, int(n**0.5)) | 1
