"""Lines of charts: columns as numbers, bands over seeds, thinning that keeps gaps and extremes."""

import math

import numpy as np
import pytest

from se_framework.comparison.report.series import Series, band, by_member, numeric, short, spans, thinned


def test_columns_of_numbers_are_lines_and_empty_cells_were_not_recorded():
    rows = [{"round": "10", "D": "1.5", "note": "odd", "late": "", "seconds": "3"},
            {"round": "20", "D": "nan", "note": "", "late": "-2", "seconds": "4"}]  # fmt: skip
    found = numeric(rows)
    assert set(found) == {"D", "late"}  # no clock, no text
    (line,) = found["D"]
    assert line.rounds.tolist() == [10, 20] and line.values[0] == 1.5 and math.isnan(line.values[1])
    assert found["late"][0].rounds.tolist() == [20] and found["late"][0].values.tolist() == [-2]


def test_members_are_lines_of_their_own_in_their_order():
    rows = [{"round": str(t), "member": str(k), "D": str(10 * k + t)} for t in (1, 2) for k in (2, 0, 1)]
    lines = by_member(rows)["D"]
    assert [line.member for line in lines] == [0, 1, 2]
    assert [line.values.tolist() for line in lines] == [[1, 2], [11, 12], [21, 22]]


def test_a_band_is_mean_least_and_greatest_of_what_is_finite_at_each_round():
    lines = [
        Series(np.array([1.0, 2, 3]), np.array([1.0, 5.0, np.nan])),
        Series(np.array([1.0, 3, 4]), np.array([3.0, np.inf, 8.0])),
    ]
    found = band(lines)
    assert found.rounds.tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(found.mean, [2, 5, np.nan, 8])
    np.testing.assert_array_equal(found.low, [1, 5, np.nan, 8])
    np.testing.assert_array_equal(found.high, [3, 5, np.nan, 8])
    assert found.present.tolist() == [2, 1, 0, 1]


@pytest.mark.parametrize("most", [4, 50, 333])
def test_thinning_keeps_ends_extremes_order_and_gaps(most):
    draw = np.random.default_rng(0)
    values = draw.normal(size=5000)
    values[1234], values[4321], values[2500] = 99, -99, np.nan
    kept = thinned(values, most)
    assert len(kept) <= most and kept[0] == 0 and kept[-1] == 4999 and (np.diff(kept) > 0).all()
    if most >= 50:  # below, a stretch has no room for all of its own
        assert {1234, 4321, 2500} <= set(kept.tolist())


def test_a_line_that_fits_is_left_as_it_is():
    assert thinned(np.arange(7.0), 7).tolist() == list(range(7))


def test_numbers_of_a_page_have_six_digits_and_nothing_that_json_lacks():
    assert short([1 / 3, 1e-9 / 3, 123456789.0, 2.0, -0.0]) == [0.333333, 3.33333e-10, 123457000, 2, 0]
    assert short([math.nan, math.inf, -math.inf]) == [None, None, None]


def test_a_logarithmic_scale_is_for_positive_lines_over_three_powers_of_ten():
    assert spans(np.array([1e-3, 1.1])) and spans(np.array([1e-3, np.nan, 1.1]))
    assert not spans(np.array([1e-3, 0.9])) and not spans(np.array([0.0, 1e9])) and not spans(np.array([np.nan]))
