import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import batch, errors
from evalbeam.transforms.examples import identity


def examples(columns, serialized=None):
    record = pa.RecordBatch.from_pydict(columns)
    serialized = None if serialized is None else np.array(serialized, object)
    return batch.Batch(
        batch.Shard("eval", "data/eval-3", "csv"), np.arange(record.num_rows), record, serialized
    )


def of_ids(column):
    return identity.hashes(examples({"id": column}), "id")


def of_content(**columns):
    return identity.hashes(examples(columns), None)


def test_hashes_never_change():
    assert of_ids(["a", "Köln", ""]).tolist() == [
        13950350942979735504,
        3109540649127535414,
        1760245841805064774,
    ]
    assert of_ids([7, -1]).tolist() == [639464881952108352, 18383018987633238419]
    content = of_content(x=[[1.5], [1.5, 2.0], None], n=[1, None, 2], s=["a", "b", None])
    assert content.tolist() == [10553937316914590490, 16904646925722794419, 8125171666664544301]
    serialized = examples({"x": [1]}, [b"\x0a\x00"])
    assert identity.hashes(serialized, None).tolist() == [5413780814530593694]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([7, 10**15 + 1, -3], pa.int64()),
        pa.array([[7], [10**15 + 1], [-3]], pa.list_(pa.int64())),
        pa.array([7.0, 10.0**15 + 1, -3.0], pa.float64()),
        pa.array(["7", "1000000000000001", "-3"]),
        pa.array([b"7", b"1000000000000001", b"-3"]),
        pa.array([["7"], ["1000000000000001"], ["-3"]], pa.list_(pa.large_string())),
        pa.array(["7", "1000000000000001", "-3"]).dictionary_encode(),
    ],
)
def test_an_id_is_its_text_in_any_format(column):
    np.testing.assert_array_equal(of_ids(column), of_ids([7, 10**15 + 1, -3]))


def test_fractional_ids_do_not_change_whole_ones_next_to_them():
    assert of_ids([7.0, 0.5])[0] == of_ids([7.0])[0] == of_ids([7])[0]


CONTENT = {
    "x": pa.array([[1.5], [1.5, 2.0], None, [2.0, 1.5], [1.5, None]], pa.list_(pa.float32())),
    "n": pa.array([1, None, 2, 2**60 + 1, 2**60]),
    "s": pa.array(["a", "b", None, "a", "a"]),
}


def test_content_hashes_belong_to_rows_not_to_batches():
    whole = examples(CONTENT)
    hashes = identity.hashes(whole, None)
    assert len(set(hashes.tolist())) == 5
    order = np.array([4, 2, 0, 3, 1])
    np.testing.assert_array_equal(identity.hashes(whole.take(order), None), hashes[order])
    for row in range(5):
        assert identity.hashes(whole.take(np.array([row])), None)[0] == hashes[row]


def test_content_hashes_follow_values_not_their_form():
    hashes = of_content(**CONTENT)
    wide = {
        "s": CONTENT["s"].cast(pa.binary()),
        "nothing": pa.nulls(5),
        "x": CONTENT["x"].cast(pa.large_list(pa.float64())),
        "n": CONTENT["n"].cast(pa.uint64()),
    }
    np.testing.assert_array_equal(of_content(**wide), hashes)
    assert of_content(x=[0.0]) == of_content(x=[-0.0]) == of_content(x=[[0.0]])


def test_content_hashes_tell_columns_places_and_lengths_apart():
    assert of_content(a=[1], b=[2]) != of_content(a=[2], b=[1])
    assert of_content(a=[[1, 2]]) != of_content(a=[[2, 1]])
    assert of_content(a=[[0]]) != of_content(a=[[0, 0]])
    assert of_content(a=[["ab", "c"]]) != of_content(a=[["a", "bc"]])
    assert of_content(a=[[0]]) != of_content(a=pa.nulls(1))


@pytest.mark.parametrize("units", [20, 50, 64])
@pytest.mark.parametrize(
    "hashes",
    [
        of_ids(pa.array(np.arange(50_000))),
        of_content(n=pa.array(np.arange(50_000))),
        of_content(n=pa.array(np.arange(50_000) * 64.0)),
    ],
    ids=["ids", "integers", "floats"],
)
def test_hashes_are_uniform_over_units(hashes, units):
    counts = np.bincount((hashes % np.uint64(units)).astype(int), minlength=units)
    expected = len(hashes) / units
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # Its mean is units - 1, its deviation sqrt(2 (units - 1)); the inputs are fixed.
    assert abs(chi_square - (units - 1)) < 4 * np.sqrt(2 * (units - 1))
    assert len(np.unique(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            ["a", None],
            "data/eval-3, row 2 .*: id column 'id' is missing; each example needs one",
        ),
        ([["a"], []], "row 2 .*: id column 'id' is missing"),
        ([["a"], [None]], "row 2 .*: id column 'id' is missing"),
        ([["a"], ["b", "c"]], "row 2 .*: id column 'id' has 2 values"),
    ],
)
def test_missing_ids_are_reported(column, message):
    with pytest.raises(errors.JobError, match=message):
        of_ids(column)


def test_an_absent_id_column_is_reported():
    with pytest.raises(errors.JobError, match=r"no row has the id column 'id' \(columns: x\)"):
        identity.hashes(examples({"x": [1]}), "id")


def test_a_list_of_words_is_the_same_as_a_dictionary():
    words = [["a"], None, ["b", "a"], ["a"]]
    plain = pa.array(words, pa.large_list(pa.large_binary()))
    flat = plain.values.dictionary_encode()
    encoded = pa.LargeListArray.from_arrays(plain.offsets, flat, mask=plain.is_null())
    both = [examples({"w": column}) for column in (plain, encoded)]
    assert identity.hashes(both[0], None).tolist() == identity.hashes(both[1], None).tolist()


def test_arrays_are_the_same_nested_and_flat():
    rows = [[1.0, 2.0, 3.0, 4.0], [0.0, 5.0, 0.0, 6.0]]
    nested = [[row[:2], row[2:]] for row in rows]
    hashes = of_content(x=rows)
    for column in (nested, pa.array(nested, pa.list_(pa.list_(pa.float32(), 2), 2))):
        np.testing.assert_array_equal(of_content(x=column), hashes)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(nested))
    np.testing.assert_array_equal(of_content(x=tensors), hashes)
    ragged = [[[1.0], [2.0, 3.0, 4.0]], None, [[0.0, 5.0], None, [], [0.0, 6.0]]]
    np.testing.assert_array_equal(of_content(x=ragged)[[0, 2]], hashes)


def test_bytes_of_fixed_width_are_bytes():
    rows = [bytes([0, 255, 137]), b"abc"]
    np.testing.assert_array_equal(
        of_content(x=pa.array(rows, pa.binary(3))), of_content(x=pa.array(rows, pa.binary()))
    )
