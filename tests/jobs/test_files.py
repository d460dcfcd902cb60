"""Data in the files that people have: partitioned folders, compression, delimiters, encodings."""

import bz2
import decimal
import gzip
import io
import json
import lzma
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from evalbeam.transforms.formats import files, tfrecord


@pytest.fixture
def frame(tmp_path):
    rng = np.random.default_rng(1)
    p = rng.random(240).round(6)
    y = (rng.random(240) < p).astype(int)
    return pd.DataFrame({"label": y, "score": p, "seg": np.where(p > 0.5, "Zürich", "Bern")})


def config(pattern, **data):
    return {
        "data": {"files": pattern, "label": "label", **data},
        "models": [{"name": "m", "predictions": "score"}],
        "slices": [["seg"]],
        "metrics": ["ExampleCount", "BinaryAccuracy"],
    }


def results(run):
    frame = pd.read_parquet(run / "metrics.parquet")
    return frame.set_index(["slice", "metric"])["value"].to_dict()


def expect(frame, column="seg"):
    expected = {}
    for name, rows in [("overall", frame), *frame.groupby(column)]:
        slice_ = name if name == "overall" else f"{column}={name}"
        expected[slice_, "example_count"] = len(rows)
        right = (rows["score"] > 0.5) == rows["label"]
        expected[slice_, "binary_accuracy"] = right.mean()
    return expected


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("d.csv", lambda text: text.encode()),
        ("d.csv", lambda text: text.replace("\n", "\r").encode()),
        ("d.csv", lambda text: text.replace("\n", "\r\n").rstrip().encode()),
        ("d.csv.gz", lambda text: gzip.compress(text.encode())),
        ("d.csv.bz2", lambda text: bz2.compress(text.encode())),
        ("d.csv.xz", lambda text: lzma.compress(text.encode())),
        ("d.csv.zst", lambda text: pa.compress(text.encode(), "zstd", asbytes=True)),
        ("d.csv-00000-of-00001.gz", lambda text: gzip.compress(text.encode())),
        ("d.csv.zlib", lambda text: zlib.compress(text.encode())),
    ],
)  # fmt: skip
def test_line_ends_and_compression(run_job, frame, tmp_path, name, write):
    (tmp_path / name).write_bytes(write(frame.to_csv(index=False)))
    assert results(run_job(config(name))) == expect(frame)


def zstd(content):
    return pa.compress(content, "zstd", asbytes=True)


COMPRESSIONS = [gzip.compress, bz2.compress, lzma.compress, zlib.compress, zstd]


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_streams_one_after_the_other_are_one_file(run_job, frame, tmp_path, compress):
    text = frame.to_csv(index=False).encode()
    streams = [compress(line) for line in text.splitlines(keepends=True)]
    padding = bytes(8) if compress in (gzip.compress, lzma.compress) else b""
    (tmp_path / "d.csv").write_bytes(b"".join(streams) + padding)
    assert results(run_job(config("d.csv"))) == expect(frame)


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_damage_of_a_later_stream_is_not_the_end_of_the_file(evalbeam, frame, tmp_path, compress):
    text = frame.to_csv(index=False).encode()
    later = bytearray(compress(text[3000:]))
    later[0] ^= 1
    (tmp_path / "d.csv").write_bytes(compress(text[:3000]) + later)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config("d.csv", max_dead_letters=1.0)))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "the rest of the file cannot be read" in result.output


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_a_truncated_file_is_refused(evalbeam, frame, tmp_path, compress):
    (tmp_path / "d.csv").write_bytes(compress(frame.to_csv(index=False).encode())[:-30])
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config("d.csv", max_dead_letters=1.0)))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "the rest of the file cannot be read" in result.output
    assert not (tmp_path / "results" / "latest").exists()


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_delimiters_and_encodings(run_job, frame, tmp_path, delimiter, encoding):
    frame.to_csv(tmp_path / "d.csv", sep=delimiter, encoding=encoding, index=False)
    run = run_job(config("d.csv", csv={"delimiter": delimiter, "encoding": encoding}))
    assert results(run) == expect(frame)


def test_another_delimiter_or_encoding_is_named(evalbeam, frame, tmp_path):
    for settings, message in (
        ({"sep": ";"}, "if ';' separates columns, set `data: {csv: {delimiter: \";\"}}`"),
        ({"encoding": "latin-1"}, "text that is not UTF-8; set `data: {csv: {encoding"),
    ):
        frame.to_csv(tmp_path / "d.csv", index=False, **settings)
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(config("d.csv")))
        assert message in evalbeam("run", "job.yaml").output


def write_parts(frame, folder, form):
    """As Spark writes partitions, with its other files."""
    for day, rows in frame.groupby("day"):
        part = folder / f"day={day}"
        part.mkdir(parents=True)
        rows = rows.drop(columns="day")
        if form == "parquet":
            rows.to_parquet(part / "part-00000-0a.c000.snappy.parquet")
        elif form == "csv":
            rows.to_csv(part / "part-00000-0a.c000.csv", index=False)
        else:
            rows.to_json(part / "part-00000-0a.c000.json", orient="records", lines=True)
        (part / ".part-00000.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / f"part-1.{form}").write_bytes(b"half")


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
@pytest.mark.parametrize("pattern", ["scored", "scored/", "scored/*/*", "scored/**"])
def test_a_folder_of_partitions(run_job, frame, tmp_path, form, pattern):
    frame["day"] = np.where(np.arange(240) % 3, "2024-01-01", "2024-01-02")
    write_parts(frame, tmp_path / "scored", form)
    run = run_job({**config(pattern), "slices": [["day"]]})
    assert results(run) == expect(frame, "day")


def test_partitions_are_columns_of_any_role(run_job, frame, tmp_path):
    frame["day"] = frame["label"]
    write_parts(frame.drop(columns="label"), tmp_path / "scored", "parquet")
    job = config("scored", weight="day")
    job["data"]["label"] = "day"
    run = run_job(job)
    right = (frame["score"] > 0.5) == frame["label"]
    accuracy = (right * frame["label"]).sum() / frame["label"].sum()
    assert results(run)["overall", "binary_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
def test_columns_of_files_come_before_those_of_folders(run_job, frame, tmp_path, form):
    frame["day"] = np.arange(240) % 2
    write_parts(frame, tmp_path / "scored", form)
    # The files are now in folders of another column, which they have as well.
    (tmp_path / "scored").rename(tmp_path / "seg=Basel")
    run = run_job({**config("seg=Basel"), "slices": [["seg"], ["day"]]})
    assert results(run).items() >= expect(frame).items()
    notes = json.loads((run / "manifest.json").read_text())["notes"]
    (note,) = (note for note in notes if "folders" in note)
    assert note.startswith("column 'seg' of the files is used, not that of their folders (seg=Base")


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_files_without_a_suffix(run_job, frame, tmp_path, form):
    if form == "parquet":
        frame.to_parquet(tmp_path / "part-0")
    else:
        frame.to_json(tmp_path / "part-0", orient="records", lines=True)
    assert results(run_job(config("part-0"))) == expect(frame)


def test_nested_objects(run_job, frame, tmp_path):
    rows = frame.to_dict("records")
    lines = [
        json.dumps({"label": row["label"], "p": {"score": row["score"], "by": {"seg": row["seg"]}}})
        for row in rows
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    job = config("d.jsonl")
    job["models"] = [{"name": "m", "predictions": "p.score"}]
    job["slices"] = [["p.by.seg"]]
    expected = expect(frame.rename(columns={"seg": "p.by.seg"}), "p.by.seg")
    assert results(run_job(job)) == expected


def test_a_json_array_is_named(evalbeam, frame, tmp_path):
    frame.to_json(tmp_path / "d.json", orient="records")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config("d.json")))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "d.json is a JSON array, but data in JSON has an object per line" in result.output


@pytest.mark.parametrize("nest", [("[", "]"), ('{"a":', "}")])
def test_json_of_any_depth_is_a_dead_letter(run_job, frame, tmp_path, nest):
    lines = frame.to_json(orient="records", lines=True).splitlines()
    deep = nest[0] * 20_000 + "1" + nest[1] * 20_000
    lines[50] = lines[50][:-1] + f', "extra": {deep}}}'
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    run = run_job(config("d.jsonl", max_dead_letters=0.01))
    assert results(run) == expect(frame.drop(50))
    letter = json.loads((run / "dead_letter" / "rows.jsonl").read_text())
    assert letter["reason"] == "an object nested more than 64 levels deep"


def test_decimals_are_numbers(run_job, frame, tmp_path):
    def to_decimals(values, scale):
        texts = [f"{value:.{scale}f}" for value in values]
        return pa.array(map(decimal.Decimal, texts), pa.decimal128(12, scale))

    weights = np.where(frame["score"] > 0.3, 1.5, 0.5)
    table = pa.table(
        {
            "label": to_decimals(frame["label"], 0),
            "score": to_decimals(frame["score"], 6),
            "seg": frame["seg"].to_list(),
            "w": to_decimals(weights, 2),
        }
    )
    pq.write_table(table, tmp_path / "d.parquet")
    run = run_job(config("d.parquet", weight="w"))
    right = (frame["score"] > 0.5) == frame["label"]
    expected = np.average(right, weights=weights)
    assert results(run)["overall", "binary_accuracy"] == pytest.approx(expected)


def count_rows(path):
    """The rows that a Parquet file's footer counts, and those of its row groups."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return None
    return metadata.num_rows, [
        metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
    ]


def test_a_footer_that_contradicts_itself(evalbeam, frame, tmp_path):
    frame.to_parquet(tmp_path / "good.parquet", row_group_size=100)
    content = (tmp_path / "good.parquet").read_bytes()
    whole = count_rows(tmp_path / "good.parquet")
    assert whole == (240, [100, 100, 40])
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config("d.parquet", max_dead_letters=1.0)))
    tried = 0
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for place in range(start, len(content) - 8):
        damaged = bytearray(content)
        damaged[place] ^= 1 << 5
        (tmp_path / "d.parquet").write_bytes(damaged)
        counts = count_rows(tmp_path / "d.parquet")
        if counts is None or counts[0] == sum(counts[1]) or tried == 4:
            continue
        tried += 1
        result = evalbeam("run", "job.yaml")
        assert result.exit_code == 2, result.output
        assert "d.parquet" in result.output
        assert "its footer counts" in result.output
    assert tried
    assert not (tmp_path / "results" / "latest").exists()


def test_a_zlib_tfrecord(tmp_path):
    raw = io.BytesIO()
    tfrecord.write(raw, [b"x" * 40056, b"second"])  # the length starts as zlib does
    (tmp_path / "raw").write_bytes(raw.getvalue())
    (tmp_path / "zlib").write_bytes(zlib.compress(raw.getvalue()))
    for name in ("raw", "zlib"):
        assert b"".join(files.blocks(str(tmp_path / name))) == raw.getvalue()
