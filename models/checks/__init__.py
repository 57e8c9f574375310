"""Laws that every model obeys: its laws' shapes, particles, samples, densities and gradients, on any object.

``check_model(model)`` raises with the name of every law that fails and its numbers. It looks at a copy in float64 whose
parameters are moved by a tenth of a standard normal number each: at the start some networks are constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from models.base import Model
from models.checks import density, sampling

__all__ = ["check_model", "model_laws"]


def model_laws(model: Model) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield name and law, a callable without arguments, for every law that applies to what the model declares."""
    if not isinstance(model, Model):
        raise TypeError(f"check_model takes an instance of Model, got {model!r}: build one first")
    found: list[Callable[[Model], None]] = [
        sampling.shapes, sampling.dtype_kept, sampling.determined_by_noise, sampling.determined_by_draws,
        sampling.sample_needs_no_graph, sampling.gradient_reaches_every_parameter, sampling.context_is_read,
        sampling.law_keeps_its_parameters,
    ]  # fmt: skip
    if model.has_rsample:
        found.append(sampling.rsample_is_sample)
    if model.has_log_prob:
        found += [
            density.density_of_particles, density.samples_follow_the_density, density.density_by_the_jacobian,
            density.inverse_inverts,
        ]  # fmt: skip
        if model.dimension <= 2:
            found.append(density.density_integrates_to_one)
    for law in found:
        yield law.__name__, partial(law, model)


def check_model(model: Model) -> None:
    """Run every law that applies.

    Args:
        model: the object; it is copied, and left as it is.

    Raises:
        AssertionError: a law fails; the message names all that do, with the numbers.
        TypeError: no model.
    """
    failures, count = [], 0
    for name, law in model_laws(model):
        count += 1
        try:
            law()
        except Exception as error:  # a law that cannot be evaluated is not kept
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            failures.append(f"{name}: {kind}{error}")
    if failures:
        raise AssertionError("\n  ".join([f"{type(model).__name__} breaks {len(failures)} of {count} laws", *failures]))
