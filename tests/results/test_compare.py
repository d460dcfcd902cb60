"""Differences between versions, and what they mean for a conversion."""

import numpy as np
import pytest

from evalbeam.transforms.results import compare

BOUNDS = compare.Bounds(good=0.01, acceptable=0.02, bad=0.05)


@pytest.mark.parametrize(
    ("before", "after", "better", "verdict"),
    [
        (0.90, 0.90, 1, "good"),
        (0.90, 0.891, 1, "good"),  # 1% to the bit's mercy
        (1.00, 0.99, 1, "good"),
        (1.00, 1.01, 1, "good"),
        (1.00, 0.9899, 1, "acceptable"),
        (0.50, 0.49, 1, "acceptable"),
        (1.00, 1.02, 1, "acceptable"),
        (1.00, 0.9799, 1, "worse"),
        (1.00, 0.95, 1, "worse"),
        (1.00, 0.9499, 1, "bad"),
        (0.50, 0.60, 1, "better"),
        (0.10, 0.11, -1, "bad"),
        (0.10, 0.05, -1, "better"),
        (-0.5, -0.51, 1, "acceptable"),
        (0.0, 0.0, 1, "good"),
        (0.0, 0.1, 1, "better"),
        (0.0, 0.1, -1, "bad"),
        (np.nan, 0.1, 1, None),
        (0.1, np.nan, 1, "bad"),  # no value is left
        (np.inf, np.inf, -1, "good"),
        (np.inf, 0.1, -1, "better"),
        (np.inf, 0.1, 1, "bad"),
        (0.1, np.inf, -1, "bad"),
        (np.nan, np.nan, 1, None),
    ],
)
def test_verdicts(before, after, better, verdict):
    changed = compare.changes(np.array([before]), np.array([after]), better)
    assert compare.verdicts(changed, BOUNDS).tolist() == [verdict]


def test_verdicts_have_the_shape_of_the_values():
    before = np.array([[0.5, 0.5], [0.5, np.nan]])
    changed = compare.changes(before, np.array([[0.5, 0.4], [0.49, 0.5]]), 1)
    assert compare.verdicts(changed, BOUNDS).tolist() == [["good", "bad"], ["acceptable", None]]


def test_bounds_are_the_configs():
    changed = compare.changes(np.ones(4), np.array([0.9, 0.8, 0.6, 0.4]), 1)
    found = compare.verdicts(changed, compare.Bounds(0.1, 0.2, 0.5))
    assert found.tolist() == ["good", "acceptable", "worse", "bad"]
