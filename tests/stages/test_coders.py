"""Encoding tables is lossless to the bit, and makes them smaller."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from evalbeam.transforms.examples.slices import SliceKey
from evalbeam.transforms.metrics.table import Layout, Sums, Table
from evalbeam.transforms.stages import coders

CODER = coders.TableCoder()
SUMS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64),
    st.integers(-(2**53), 2**53).map(float),
    st.integers(0, 3).map(float),
    st.just(-0.0),
)


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 10**7), SUMS, SUMS), unique_by=lambda row: row[0]),
    st.booleans(),
)
def test_encoding_tables_is_lossless(rows, rounded):
    rows = sorted(rows, key=lambda row: row[0])
    keys = np.array([row[0] for row in rows], np.int64)
    high, low = (np.array([row[i] for row in rows], np.float64) for i in (1, 2))
    table = Table(
        (SliceKey("eval"), SliceKey("eval", (("a", "ü"), ("b", 1)))),
        {"s": Layout(50, 200_000), "empty": Layout(1, 1)},
        {"s": Sums(keys, high, low if rounded else None), "empty": Sums.empty()},
    )
    decoded = CODER.decode(CODER.encode(table))
    assert decoded.slices == table.slices
    assert decoded.layouts == table.layouts
    for name, sums in table.sums.items():
        assert decoded.sums[name].keys.tobytes() == sums.keys.tobytes()
        assert decoded.sums[name].high.tobytes() == sums.high.tobytes()
        assert (decoded.sums[name].low is None) == (sums.low is None)
        if sums.low is not None:
            assert decoded.sums[name].low.tobytes() == sums.low.tobytes()


def test_encoded_counts_take_less_than_a_quarter_of_their_memory():
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 10**7, 200_000))
    counts = rng.geometric(0.3, len(keys)).astype(float)
    table = Table((SliceKey("eval"),), {"s": Layout(1, 10**7)}, {"s": Sums(keys, counts)})
    assert len(CODER.encode(table)) < table.nbytes / 4
