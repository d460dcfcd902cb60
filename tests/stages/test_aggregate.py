"""The tables and ledgers that workers add up, and the metrics that they report to Beam."""

from __future__ import annotations

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.metrics import metric
from apache_beam.testing import util

from evalbeam.transforms import batch, errors, meter
from evalbeam.transforms.examples import labels
from evalbeam.transforms.metrics import statistics
from evalbeam.transforms.metrics.evaluation import Evaluation
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
    regression = labels.Head("", "y", "regression")  # keeps no confusion counts
    evaluation = Evaluation(("v1",), (regression,))
    stage = aggregate.Aggregate(evaluation, partitions=4, progress=board)
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
    ledgers = added[aggregate.LEDGERS] | beam.Map(
        lambda ledger: (
            dict(ledger.scored),
            ledger.batches,
            dict(ledger.predict_seconds),
            ledger.state_bytes > 0,
        )
    )
    expected = ({"eval": 7, "train": 5}, 3, {"v1": 0.75}, True)
    util.assert_that(ledgers, util.equal_to([expected]), "ledger")
    run = pipeline.run()
    run.wait_until_finish()
    assert board.total() == 12
    metrics = run.metrics().query(metric.MetricsFilter().with_namespace("evalbeam"))
    (distribution,) = metrics["distributions"]
    assert distribution.key.metric.name == "state_bytes"
    assert distribution.committed.sum == 2 * 16  # two sums and their keys


def test_a_meter_reports_that_its_board_is_gone(tmp_path):
    orphan = meter.Meter(meter.Board(str(tmp_path / "gone"), seconds=0))
    with pytest.raises(
        errors.JobError,
        match=r"gone does not exist\. Either the process that started the job is gone",
    ):
        orphan.add(1)
