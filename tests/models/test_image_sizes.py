"""What networks for images cannot make is refused, with what they can."""

from __future__ import annotations

import pytest

from models import ResidualCritic, ResidualGenerator, StridedCritic, TransposedGenerator

COLOUR = (3, 32, 32)


@pytest.mark.parametrize("cls", [ResidualGenerator, ResidualCritic])
@pytest.mark.parametrize(("shape", "larger"), [((30, 30), "32 x 32"), ((3, 8, 9), "8 x 10"), ((1, 4, 4), "8 x 8")])
def test_a_size_that_doublings_do_not_make_is_refused(cls, shape, larger):
    assert f"resized to {larger} they would fit" in cls.unmakeable(shape)
    assert cls.unmakeable(tuple(int(n) for n in larger.split(" x "))) is None
    with pytest.raises(ValueError, match=r"4, 5, 6 or 7 times a power of two.*model=conv_generator"):
        cls(shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ResidualGenerator(COLOUR, multipliers=[4, 2, 1]),
            r"needs 4 multipliers.*got \[4, 2, 1\].*\[1,1,1,1\]",
        ),
        (lambda: ResidualGenerator(COLOUR, skip=True, latent_dim=90), "4 equal parts.*90: model.latent_dim=88"),
        (lambda: ResidualGenerator(COLOUR, skip=True, classes=3), "labels need an embedding: model.shared=128"),
        (lambda: ResidualGenerator(COLOUR, shared=8), "the data has none: data.labels=true, or model.shared=0"),
        (lambda: ResidualGenerator(COLOUR, attention=4), "heights 8, 16, 32.*attention = 4: model.attention=8"),
        (lambda: ResidualCritic(COLOUR, attention=4), "heights 16, 8.*metric.network.attention=8"),
        (lambda: ResidualCritic((28, 28), attention=6), "heights 14 .*metric.network.attention=14"),
        (lambda: ResidualCritic((28, 28), multipliers=(1,) * 4, plain=1), "1 to 2 times, got 4 multipliers of which 1"),
        (lambda: ResidualCritic((28, 28), multipliers=(1,), plain=1), "give 2 to 3 of them"),
        (lambda: ResidualCritic(COLOUR, width=0), "width must be at least 1"),
        (lambda: ResidualGenerator(COLOUR, output="sigmoid"), "output must be linear or tanh"),
        (lambda: TransposedGenerator(COLOUR, output="sigmoid"), "output must be linear or tanh"),
        (lambda: StridedCritic(COLOUR, norm="layer"), "norm must be batch or none"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(make, message):
    with pytest.raises(ValueError, match=message):
        make()
