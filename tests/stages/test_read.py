from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.metrics import metric
from apache_beam.testing import util

from evalbeam.transforms import batch, errors
from evalbeam.transforms.ledger import ShardCounts
from evalbeam.transforms.stages import read

LOCAL = ["--runner=DirectRunner", "--update_compatibility_version=2.77.0"]
PROJECTION = batch.Projection(("n",))


@pytest.fixture
def shards(tmp_path):
    shards = []
    for name in ("a", "b", "c"):
        path = tmp_path / f"{name}.csv"
        path.write_text("n,s\n" + "".join(f"{n},x\n" for n in range(10)) + "1,2,3\n")
        shards.append(batch.Shard("eval", str(path), "csv"))
    return shards


def test_batches_dead_letters_and_counts(shards):
    pipeline = beam.Pipeline(argv=LOCAL)
    result = (
        pipeline | beam.Create([tuple(shards[:2]), tuple(shards[2:])]) | read.Read(PROJECTION, 4)
    )
    ages = result.batches | beam.FlatMap(lambda b: b.columns.column("n").to_pylist())
    sizes = result.batches | beam.Map(lambda b: (b.shard, len(b)))
    ledgers = result[read.LEDGERS]
    letters = ledgers | beam.FlatMap(lambda ledger: ledger.dead_letters)
    dead = letters | beam.Map(lambda letter: (letter.path, letter.position))
    counts = ledgers | beam.FlatMap(lambda ledger: ledger.shards)
    util.assert_that(ages, util.equal_to(list(range(10)) * 3), "ages")
    util.assert_that(
        sizes, util.equal_to([(shard, n) for shard in shards for n in (4, 4, 2)]), "sizes"
    )
    util.assert_that(dead, util.equal_to([(shard.path, 10) for shard in shards]), "dead")
    expected = [ShardCounts("eval", shard.path, None, 10, 1) for shard in shards]
    util.assert_that(counts, util.equal_to(expected), "counts")
    run = pipeline.run()
    run.wait_until_finish()
    counters = run.metrics().query(metric.MetricsFilter().with_namespace("evalbeam"))["counters"]
    assert {c.key.metric.name: c.committed for c in counters} == {
        "examples_read": 33,
        "examples_dead_lettered": 3,
        "batches": 9,
    }


def test_a_pipeline_may_read_twice(shards):
    with beam.Pipeline(argv=LOCAL) as pipeline:
        source = pipeline | beam.Create([tuple(shards)])
        first = source | "Read eval" >> read.Read(PROJECTION, 4)
        second = source | "Read train" >> read.Read(PROJECTION, 4)
        both = (first.batches, second.batches) | beam.Flatten() | beam.Map(len)
        util.assert_that(both | beam.CombineGlobally(sum), util.equal_to([60]))


def test_a_file_that_cannot_be_opened_fails_the_job(tmp_path):
    missing = batch.Shard("eval", str(tmp_path / "gone.csv"), "csv")
    pipeline = beam.Pipeline(argv=LOCAL)
    _ = pipeline | beam.Create([(missing,)]) | read.Read(PROJECTION, 4)
    with pytest.raises(errors.JobError, match=r"Cannot read .*gone\.csv: .*No such file"):
        pipeline.run()
