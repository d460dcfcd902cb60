"""What workers add up, and what Beam is told of it."""

from __future__ import annotations

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.metrics import metric
from apache_beam.testing import util

from evalbeam.transforms import batch, errors, meter
from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.stages import aggregate

LOCAL = ["--runner=DirectRunner", f"--update_compatibility_version={beam.version.__version__}"]


def scored(rows, split="eval"):
    shard = batch.Shard(split, "a.csv", "csv")
    plan = pa.array(["free" if row % 2 else "paid" for row in range(rows)])
    columns = pa.RecordBatch.from_arrays([plan], ["plan"])
    zeros = np.zeros(rows)
    examples = batch.Batch(shard, np.arange(rows), columns)
    hashes = np.arange(rows, dtype=np.uint64)
    return batch.Scored(examples, {"": zeros}, None, hashes, {("v1", ""): zeros}, {"v1": 0.25})


def test_tables_ledgers_and_metrics_agree(tmp_path):
    board = meter.Board(str(tmp_path), seconds=0)
    examples = statistics.Examples(False)
    stage = aggregate.Aggregate(((),), (examples,), 1, (), partitions=4, progress=board)
    pipeline = beam.Pipeline(argv=LOCAL)
    batches = pipeline | beam.Create([scored(3), scored(4), scored(5, "train")], reshuffle=False)
    added = batches | stage
    counts = added[aggregate.TABLES] | beam.FlatMap(
        lambda numbered: [
            (str(key), key.split, n)
            for key, n in zip(
                numbered[1].slices, numbered[1].dense(examples.name)[:, 0], strict=True
            )
        ]
    )
    util.assert_that(counts, util.equal_to([("overall", "eval", 7), ("overall", "train", 5)]))
    entered = added[aggregate.LEDGERS] | beam.Map(
        lambda one: (dict(one.scored), one.batches, dict(one.predict_seconds), one.state_bytes > 0)
    )
    whole = ({"eval": 7, "train": 5}, 3, {"v1": 0.75}, True)
    util.assert_that(entered, util.equal_to([whole]), "ledger")
    run = pipeline.run()
    run.wait_until_finish()
    assert board.total() == 12
    found = run.metrics().query(metric.MetricsFilter().with_namespace("evalbeam"))
    (distribution,) = found["distributions"]
    assert distribution.key.metric.name == "state_bytes"
    assert distribution.committed.sum == 2 * 16  # two sums and their keys


def test_a_meter_without_a_board_says_that_nobody_waits(tmp_path):
    one = meter.Meter(meter.Board(str(tmp_path / "gone"), seconds=0))
    with pytest.raises(
        errors.JobError, match=r"gone is not there: whoever started the job is gone"
    ):
        one.add(1)
