"""A state is loaded as it was saved, or rejected with an error."""

import json
import pathlib
import shutil

import metric_cases
import pytest

from evalbeam.transforms import errors
from evalbeam.transforms.ledger import Ledger
from evalbeam.transforms.metrics import plan
from evalbeam.transforms.metrics.evaluation import MetricSpec
from evalbeam.transforms.results import index
from evalbeam.transforms.sinks import state
from evalbeam.transforms.stages import aggregate

RUN = {
    "run_id": "one",
    "name": "n",
    "finished_at": "",
    "merged": [],
    "config": {"path": "job.yaml", "text": "{}"},
    "data": {"files": {"eval": ["a"]}, "format": "csv", "fingerprint_of": "its content"},
    "models": {"base": {}, "cand": {}},
    "notes": [],
    "runner": "DirectRunner",
    "job_id": None,
    "options": {},
    "batch_size": 1,
    "versions": {},
    "timings_s": {"check": 0.5},
}
MESSAGES = [b"first", b"", b"third" * 1000]


@pytest.fixture
def saved(tmp_path):
    """A run folder with a state of two partitions, and its table."""
    data = metric_cases.DATA["binary"]
    evaluation = metric_cases.evaluation(
        data, [MetricSpec("AUC"), MetricSpec("MeanSquaredError")], [("base", "cand")]
    )
    table = metric_cases.added(data, plan.plan(evaluation).statistics, units=3).sort()
    folder = tmp_path / "run" / "state"
    folder.mkdir(parents=True)
    tables = [(number, part.sort()) for number, part in aggregate.split(table, 2)]
    parts = [
        index.index_table(state.write_table(part, str(folder), number, 2), part)
        for number, part in tables
    ]
    records = state.write_records(MESSAGES, "metrics", str(folder), 0, 2)
    whole = index.merge_all([*parts, index.Index(parts=(records,))])
    (folder / state.INDEX).write_text(whole.to_json())
    (folder / state.EVALUATION).write_text(state.dump_evaluation(evaluation, evaluation))
    (folder / state.LEDGER).write_text(json.dumps(vars(Ledger(batches=3))))
    (folder / state.RUN).write_text(json.dumps(RUN))
    return tmp_path / "run", table, evaluation


def test_everything_is_loaded_as_saved(saved):
    run, table, evaluation = saved
    loaded = state.load(str(run))
    assert (loaded.evaluation, loaded.results) == (evaluation, evaluation)
    assert loaded.ledger.batches == 3
    assert loaded.run == RUN
    tables = [part for part in loaded.index.parts if part.kind == "table"]
    reread = table.join([state.read_table(loaded.folder, part) for part in tables])
    assert reread.slices == table.slices
    assert dict(reread.layouts) == dict(table.layouts)
    for name, sums in table.sums.items():
        assert reread.sums[name].keys.tobytes() == sums.keys.tobytes(), name
        assert reread.sums[name].high.tobytes() == sums.high.tobytes(), name
        if sums.low is not None and sums.low.any():
            assert reread.sums[name].low.tobytes() == sums.low.tobytes(), name
    (records,) = (part for part in loaded.index.parts if part.kind == "metrics")
    assert state.read_records(loaded.folder, records) == MESSAGES


def _second(run: pathlib.Path) -> pathlib.Path:
    (path,) = (run / "state").glob("table-00001-*")
    return path


def _edit(path: pathlib.Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run / "state"), "is not a run folder with a complete state"),
        (
            lambda run: (run / "state" / "index.json").unlink(),
            r"index\.json cannot be read \(No such file",
        ),
        (
            lambda run: _edit(run / "state" / "evaluation.json", version=1),
            "written in version 1 of the state's format; this evalbeam reads version "
            f"{state.VERSION}",
        ),
        (
            lambda run: _edit(run / "state" / "evaluation.json", version=state.VERSION + 1),
            f"written in version {state.VERSION + 1} .* Use the evalbeam that wrote it",
        ),
        (
            lambda run: _edit(run / "state" / "evaluation.json", evaluation={"models": 5}),
            "state: damaged: ",
        ),
        (lambda run: (run / "state" / "ledger.json").write_text("{"), r"ledger\.json: damaged"),
        (lambda run: (run / "state" / "ledger.json").write_text("[]"), "not a JSON object"),
        (lambda run: (run / "state" / "ledger.json").write_text("[" * 10**5), "damaged"),
        (lambda run: _edit(run / "state" / "ledger.json", differences=[1]), "damaged"),
        (lambda run: _edit(run / "state" / "ledger.json", scored={"eval": "x"}), "damaged"),
        (lambda run: _edit(run / "state" / "ledger.json", shards=[{}]), "damaged: TypeError"),
        (lambda run: _edit(run / "state" / "run.json", run_id="../escaped"), "damaged: run_id"),
        (lambda run: _edit(run / "state" / "run.json", config={}), r"damaged: config\.path: Field"),
        (lambda run: _edit(run / "state" / "run.json", models={}), "contradict each other"),
        (
            lambda run: _edit(
                run / "state" / "index.json",
                parts=2 * json.loads((run / "state" / "index.json").read_text())["parts"],
            ),
            "contradict each other",
        ),
        (
            lambda run: _second(run).unlink(),
            r"incomplete: table-00001-of-00002-\w{12}\.parquet is missing",
        ),
        (
            lambda run: _second(run).write_bytes(b"x"),
            r"incomplete: table-00001-of-00002-\w{12}\.parquet has 1 bytes",
        ),
    ],
)
def test_an_invalid_state_is_rejected(saved, damage, message):
    run, _, _ = saved
    damage(run)
    with pytest.raises(errors.ConfigError, match=message):
        state.load(str(run))


def test_a_changed_byte_is_detected_when_the_part_is_read(saved):
    run, _, _ = saved
    loaded = state.load(str(run))
    for part in loaded.index.parts:
        path = run / "state" / part.name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        read = state.read_table if part.kind == "table" else state.read_records
        with pytest.raises(
            errors.JobError, match=f"{part.name}: damaged: its SHA-256 digest differs"
        ):
            read(loaded.folder, part)
