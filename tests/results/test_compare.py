"""Differences between versions, and what they mean for a conversion."""

import numpy as np
import pytest

from evalbeam.transforms.metrics.evaluation import Bounds
from evalbeam.transforms.results import compare

BOUNDS = Bounds(good=0.01, acceptable=0.02, bad=0.05)


@pytest.mark.parametrize(
    ("before", "after", "direction", "verdict"),
    [
        (0.90, 0.90, 1, "good"),
        (0.90, 0.891, 1, "good"),  # 1% up to rounding
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
        (0.1, np.nan, 1, None),  # no longer defined, for better or for worse
        (np.inf, np.inf, -1, "good"),
        (np.inf, 0.1, -1, "better"),
        (np.inf, 0.1, 1, "bad"),
        (0.1, np.inf, -1, "bad"),
        (np.nan, np.nan, 1, None),
    ],
)
def test_verdicts(before, after, direction, verdict):
    changes = compare.measure_changes(np.array([before]), np.array([after]), direction)
    assert compare.judge(changes, BOUNDS).tolist() == [verdict]


def test_verdicts_have_the_shape_of_the_values():
    before = np.array([[0.5, 0.5], [0.5, np.nan]])
    changes = compare.measure_changes(before, np.array([[0.5, 0.4], [0.49, 0.5]]), 1)
    assert compare.judge(changes, BOUNDS).tolist() == [["good", "bad"], ["acceptable", None]]


def test_verdicts_depend_on_the_bounds():
    changes = compare.measure_changes(np.ones(4), np.array([0.9, 0.8, 0.6, 0.4]), 1)
    verdicts = compare.judge(changes, Bounds(0.1, 0.2, 0.5))
    assert verdicts.tolist() == ["good", "acceptable", "worse", "bad"]
