import dataclasses
import functools
import re

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from evalbeam.transforms import arrow, batch, errors, models
from evalbeam.transforms.examples import identity, labels, scoring
from evalbeam.transforms.stages import predict

HEAD = labels.Head("", "y", "binary")
SHARD = batch.Shard("eval", "data/eval-0", "parquet")


def examples(first=1000, **columns):
    record = pa.RecordBatch.from_pydict(columns)
    return batch.Batch(SHARD, np.arange(first, first + record.num_rows), record)


@dataclasses.dataclass
class Linear:
    """A model of column x that raises for the values in `rejected`."""

    slope: float = 0.01
    rejected: tuple[float, ...] = ()
    calls: list[int] = dataclasses.field(default_factory=list)
    inputs: tuple = ()

    def predict(self, examples):
        x = examples.columns.column("x").to_numpy(zero_copy_only=False)
        self.calls.append(len(x))
        if np.isin(x, self.rejected).any():
            raise ValueError(f"x is\n  in {self.rejected}")
        return {"": (self.slope * x).astype(np.float32)}


def rows(count, **more):
    return examples(x=np.arange(float(count)), y=np.arange(count) % 2, **more)


def score(data, versions, heads=(HEAD,), weight=None, *, strict=True):
    scales = dict.fromkeys(versions, "")
    return scoring.score(data, versions, heads, weight, None, scales, strict=strict)


def positions(letters):
    return [letter.position for letter in letters]


def test_a_batch_without_bad_rows_is_passed_on_unchanged():
    data = rows(5, w=[1, 2, 3, 4, 5])
    scored, letters = score(data, {"v1": Linear(), "v2": Linear(0.02)}, weight="w")
    assert letters == []
    assert scored.batch is data
    np.testing.assert_array_equal(scored.labels[""], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(scored.weights, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(scored.hashes, identity.hashes(data, None))
    assert list(scored.predictions) == [("v1", ""), ("v2", "")]
    np.testing.assert_array_equal(
        scored.predictions["v2", ""], np.float32([0, 0.02, 0.04, 0.06, 0.08])
    )
    assert scored.predictions["v2", ""].dtype == np.float32
    assert scored.predict_seconds.keys() == {"v1", "v2"}
    assert all(seconds > 0 for seconds in scored.predict_seconds.values())


def test_rows_that_raise_are_dead_letters_for_every_version():
    data = rows(64)
    versions = {"v1": Linear(rejected=(3.0, 40.0)), "v2": Linear(0.02, rejected=(0.0, 40.0, 63.0))}
    scored, letters = score(data, versions)
    assert positions(letters) == [1000, 1003, 1040, 1063]
    assert letters[0] == batch.DeadLetter(
        "eval",
        "data/eval-0",
        1000,
        "predict",
        "version 'v2': ValueError: x is in (0.0, 40.0, 63.0)",
    )
    assert "version 'v1'" in letters[2].reason
    kept = np.setdiff1d(np.arange(64), [0, 3, 40, 63])
    np.testing.assert_array_equal(scored.batch.positions, 1000 + kept)
    np.testing.assert_array_equal(scored.labels[""], kept % 2)
    np.testing.assert_array_equal(scored.hashes, identity.hashes(data, None)[kept])
    for version, slope in (("v1", 0.01), ("v2", 0.02)):
        np.testing.assert_array_equal(
            scored.predictions[version, ""], (slope * kept).astype(np.float32)
        )


def test_versions_share_what_is_derived_from_the_rows_that_remain():
    sizes = []

    class Sharing(Linear):
        def predict(self, examples):
            examples.memo.once("image", lambda: sizes.append(len(examples)))
            x = examples.columns.column("x").to_numpy()
            if (x == 3).any():
                raise arrow.UnscorableRowsError({int(np.argmax(x == 3)): "damaged"})
            return super().predict(examples)

    scored, letters = score(rows(8), {name: Sharing() for name in ("v1", "v2", "v3")})
    assert positions(letters) == [1003]
    assert len(scored) == 7
    assert sizes == [8, 7]


def test_a_single_bad_row_takes_few_calls():
    model = Linear(rejected=(700.0,))
    score(rows(1024), {"v1": model})
    assert len(model.calls) <= 2 + 2 * 10


def test_neighbouring_bad_rows_do_not_fail_the_job():
    scored, letters = score(rows(64), {"v1": Linear(rejected=tuple(range(32)))})
    assert positions(letters) == list(range(1000, 1032))
    assert len(scored) == 32


def test_a_model_that_fails_on_everything_fails_the_job_at_once():
    model = Linear(rejected=tuple(range(4096)))
    message = r"Version 'v1', data/eval-0: .* on a batch of 4096 .* ValueError: x is in \(0, 1,"
    with pytest.raises(errors.JobError, match=message):
        score(rows(4096), {"v1": model})
    assert len(model.calls) < 20


@pytest.mark.parametrize("size", [1, 2, 7, 64, 128])
def test_under_a_tolerance_a_row_is_scored_whatever_its_batch(size):
    bad = {*range(40, 104), 110}  # whole batches of them
    data = rows(128)
    versions = {"v1": Linear(rejected=tuple(bad)), "v2": Linear(0.02, rejected=(3.0,))}
    scored, dead = [], []
    for start in range(0, 128, size):
        taken = np.arange(start, min(128, start + size))
        part, letters = score(data.take(taken), versions, strict=False)
        scored += [] if part is None else part.batch.positions.tolist()
        dead += positions(letters)
    assert dead == sorted(1000 + row for row in bad | {3})
    assert sorted(scored + dead) == list(range(1000, 1128))


def test_a_last_batch_of_bad_rows_does_not_fail_the_job():
    assert score(rows(1), {"v1": Linear(rejected=(0.0,))})[0] is None
    scored, letters = score(rows(2), {"v1": Linear(rejected=(0.0,)), "v2": Linear(rejected=(1.0,))})
    assert scored is None
    assert positions(letters) == [1000, 1001]


def test_a_batch_too_large_for_the_model_is_halved():
    class Small(Linear):
        def predict(self, examples):
            if len(examples) > 16:
                raise MemoryError("too large")
            return super().predict(examples)

    scored, letters = score(rows(64), {"v1": Small()})
    assert letters == []
    np.testing.assert_array_equal(
        scored.predictions["v1", ""], (0.01 * np.arange(64)).astype(np.float32)
    )


def test_nan_predictions_are_dead_letters():
    stored = models.load(models.ModelSpec("v0", "stored", predictions=(("", ("p",)),)))
    data = examples(p=[0.5, float("nan"), None, 0.25], y=[0, 1, 0, 1])
    scored, letters = score(data, {"v0": stored})
    assert [(letter.position, letter.reason) for letter in letters] == [
        (1001, "version 'v0': the prediction is NaN"),
        (1002, "version 'v0': no value for column 'p'"),
    ]
    np.testing.assert_array_equal(scored.predictions["v0", ""], [0.5, 0.25])


def test_a_nan_in_any_class_is_a_dead_letter():
    stored = models.load(models.ModelSpec("v0", "stored", predictions=(("", ("p",)),)))
    data = examples(p=[[0.5, 0.5], [1.0, float("nan")]], y=[0, 1])
    scored, letters = score(data, {"v0": stored}, [labels.Head("", "y", "multiclass", 2)])
    assert positions(letters) == [1001]
    np.testing.assert_array_equal(scored.predictions["v0", ""], [[0.5, 0.5]])


def test_an_empty_batch_has_no_scores():
    assert score(rows(0), {"v1": Linear()}) == (None, [])


@pytest.mark.parametrize(
    ("column", "head", "message"),
    [
        ([[0.5, 0.1, 0.4]], HEAD, r"its output has the shape \[N, 3\]; task binary needs one .*"),
        ([[0.5, 0.5]], labels.Head("", "y", "multiclass", 3), r"shape \[N, 2\]; .*\[N, 3\]"),
        ([0.5], labels.Head("p", "y", "binary"), "there is no output 'p'; the model returns ''"),
    ],
)
def test_predictions_that_do_not_fit_the_task(column, head, message):
    stored = models.load(models.ModelSpec("v0", "stored", predictions=(("", ("p",)),)))
    scored, (letter,) = score(examples(p=column, y=[1]), {"v0": stored}, [head])
    assert scored is None
    assert re.search(f"version 'v0': .*{message}", letter.reason)


def test_missing_labels_fail_the_job():
    with pytest.raises(
        errors.JobError, match=r"data/eval-0, row 1002 .*: label column 'y' is missing"
    ):
        score(examples(x=[1.0, 2.0], y=[1, None]), {"v1": Linear()})


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A SavedModel that asserts that x is not negative, in its graph."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def function(x):
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, "x is negative")]):
            return {"score": x / 100}

    module = tf.Module()
    module.function = function
    path = tmp_path_factory.mktemp("models") / "checked"
    tf.saved_model.save(module, str(path), signatures=function)
    return models.ModelSpec("v1", "saved_model", str(path))


def test_an_assertion_in_a_graph_names_its_rows(checked):
    data = examples(x=[1.0, -2.0, 3.0, None, -5.0, 6.0], y=[0, 1, 0, 1, 0, 1])
    scored, letters = score(data, {"v1": models.load(checked)})
    assert positions(letters) == [1001, 1003, 1004]
    reason = letters[0].reason
    assert reason.startswith("version 'v1': InvalidArgumentError: assertion failed: [x is negative")
    assert letters[1].reason == "version 'v1': no value for input 'x'"
    np.testing.assert_array_equal(scored.predictions["v1", ""], np.float32([0.01, 0.03, 0.06]))


def summary(scored):
    return len(scored), float(scored.predictions["v1", ""].sum())


def test_the_stage_scores_counts_and_tags(checked):
    stored = models.ModelSpec("v0", "stored", predictions=(("", ("p",)),))
    batches = [
        examples(0, x=[1.0, -2.0, 3.0], y=[0, 1, 0], p=[0.1, 0.2, 0.3], id=[1, 2, 3]),
        examples(3, x=[4.0, 5.0], y=[0, 1], p=[0.1, None], id=[4, 5]),
        examples(5, x=[-1.0], y=[0], p=[0.1], id=[6]),
    ]
    options = PipelineOptions(["--runner=DirectRunner", "--update_compatibility_version=2.77.0"])
    pipeline = beam.Pipeline(options=options)
    results = (
        pipeline
        | beam.Create(batches)
        | "Predict" >> predict.Predict((checked, stored), (HEAD,), None, "id")
    )
    near = functools.partial(equal_to, equals_fn=lambda a, b: a == pytest.approx(b, rel=1e-6))
    assert_that(results.scored | beam.Map(summary), near([(2, 0.04), (1, 0.04)]))
    assert_that(
        results[predict.LEDGERS]
        | beam.FlatMap(lambda ledger: [letter.position for letter in ledger.dead_letters]),
        equal_to([1, 4, 5]),
        label="dead letters",
    )
    run = pipeline.run()
    run.wait_until_finish()
    metrics = run.metrics().query(beam.metrics.MetricsFilter().with_namespace("evalbeam"))
    counters = {item.key.metric.name: item.committed for item in metrics["counters"]}
    assert counters == {"examples_scored": 3, "examples_dead_lettered": 3}
    distributions = {
        item.key.metric.name: item.committed.count for item in metrics["distributions"]
    }
    assert distributions == {"predict_ms_v1": 2, "predict_ms_v0": 2}
