"""TensorFlow.js models, run by the real library; the models are made by it too."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from evalbeam.transforms import batch, errors, models
from evalbeam.transforms.examples import labels, scoring
from evalbeam.transforms.models import tfjs
from evalbeam.transforms.models.tfjs import install, node

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is no /proc here")

X = np.float32([[1, 2, 3], [-1, 0.5, 0], [0.25, -2, 4]])


@pytest.fixture
def copy(tfjs_models, tmp_path):
    """Copies a model into the test's own folder."""
    return lambda name: pathlib.Path(shutil.copytree(tfjs_models / name, tmp_path / name))


@pytest.fixture
def written(tmp_path):
    """A folder with what is read of a model before Node.js is asked for."""
    folder = tmp_path / "model"
    folder.mkdir()
    weights = [{"name": "w", "shape": [3, 7], "dtype": "float32"}]
    manifest = [{"paths": ["shard1.bin", "shard2.bin"], "weights": weights}]
    model = {"format": "layers-model", "modelTopology": {}, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "shard1.bin").write_bytes(bytes(83))
    (folder / "shard2.bin").write_bytes(bytes(1))
    return folder


def spec(path, **fields):
    return models.ModelSpec("v3", "tfjs", str(path), **fields)


def weights(path):
    """By name, the weights that were saved."""
    (group,) = json.loads((path / "model.json").read_text())["weightsManifest"]
    content = b"".join((path / name).read_bytes() for name in group["paths"])
    values, found = np.frombuffer(content, np.float32), {}
    for weight in group["weights"]:
        size = int(np.prod(weight["shape"]))
        found[weight["name"]], values = values[:size].reshape(weight["shape"]), values[size:]
    return found


def lists(array):
    """A column of lists, one for each row."""
    flat = pa.array(array.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, len(flat) // len(array))


def close(actual, expected):
    # Sums of a dozen products in float32, in another order.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_dense_model(tfjs_models, examples):
    model = models.load(spec(tfjs_models / "dense"))
    hidden, bias, output, shift = weights(tfjs_models / "dense").values()
    expected = 1 / (1 + np.exp(-(np.maximum(X @ hidden + bias, 0) @ output + shift)))
    predictions = model.predict(examples(x=lists(X)))
    close(predictions[""], expected[:, 0])
    assert predictions[""].dtype == np.float32
    assert model.projection == batch.Projection(("x",), False)
    assert model.parameters == 3 * 4 + 4 + 4 * 1 + 1
    assert model.pid != os.getpid()


def test_a_convolution(tfjs_models, examples):
    images = np.random.default_rng(7).normal(size=(5, 4, 4, 1)).astype(np.float32)
    kernel, bias, dense, shift = weights(tfjs_models / "conv").values()
    windows = np.lib.stride_tricks.sliding_window_view(images[..., 0], (3, 3), axis=(1, 2))
    seen = np.maximum(np.einsum("nijab,abcf->nijf", windows, kernel) + bias, 0)
    logits = seen.reshape(5, -1) @ dense + shift
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictions = models.load(spec(tfjs_models / "conv")).predict(examples(image=lists(images)))
    close(predictions[""], expected)


def test_two_inputs_and_two_outputs_go_by_their_names(tfjs_models, examples):
    model = models.load(spec(tfjs_models / "two", inputs=(("age", "years"),)))
    assert model.outputs == ("one", "two")
    ages = np.float32([20, 30, 40])
    predictions = model.predict(examples(x=lists(X), years=pa.array(ages)))
    kept = weights(tfjs_models / "two")
    for name in model.outputs:
        both = np.concatenate([ages[:, None], X], axis=1)
        expected = both @ kept[f"{name}/kernel"] + kept[f"{name}/bias"]
        close(predictions[name], expected[:, 0] if name == "one" else expected)
    one = models.load(spec(tfjs_models / "two", inputs=(("age", "years"),), outputs=("two",)))
    np.testing.assert_array_equal(
        one.predict(examples(x=lists(X), years=pa.array(ages)))[""], predictions["two"]
    )


def test_integers_and_an_error_of_a_batch(tfjs_models, examples):
    model = models.load(spec(tfjs_models / "embedding"))
    table, dense, shift = weights(tfjs_models / "embedding").values()
    tokens = np.array([[0, 4], [3, 3]])
    expected = table[tokens].reshape(2, -1) @ dense + shift
    with pytest.raises(RuntimeError, match=r"index value 5 is not in \[0, 4\]"):
        model.predict(examples(token=[[0, 4], [5, 3]]))
    close(model.predict(examples(token=lists(tokens)))[""], expected[:, 0])


def test_the_rows_at_fault_are_found(tfjs_models):
    model = models.load(spec(tfjs_models / "embedding"))
    tokens = np.zeros((64, 2), np.int64)
    tokens[[7, 40], 1] = 99
    record = pa.RecordBatch.from_pydict({"token": lists(tokens), "y": pa.array(np.zeros(64))})
    data = batch.Batch(batch.Shard("eval", "data/eval-0", "parquet"), np.arange(64), record)
    head = labels.Head("", "y", "regression")
    scored, letters = scoring.score(data, {"v3": model}, (head,), None, None, {"v3": ""})
    assert len(scored) == 62
    assert [letter.position for letter in letters] == [7, 40]
    assert "RuntimeError: GatherV2: the index value 99" in letters[0].reason


def test_graph_models_go_by_their_nodes_or_their_signature(tfjs_models, examples):
    model = models.load(spec(tfjs_models / "cast"))
    assert (model.inputs[0].name, model.inputs[0].dtype) == ("x", np.bool_)
    # Five and three: no multiples of 4 bytes.
    for flags in ([True, False, True, True, False], [False, False, True]):
        np.testing.assert_array_equal(model.predict(examples(x=flags))[""], np.float32(flags))
    named = models.load(spec(tfjs_models / "named", outputs=("p",)))
    assert (named.inputs[0].name, named.inputs[0].dtype) == ("count", np.int32)
    np.testing.assert_array_equal(named.predict(examples(count=[3, -4]))[""], [3, -4])
    tensors = models.load(spec(tfjs_models / "tensors", outputs=("y",)))
    np.testing.assert_array_equal(tensors.predict(examples(x=[3, -4]))[""], [3, -4])


def test_an_output_of_strings_may_be_omitted(copy, examples):
    folder = copy("cast")
    model = json.loads((folder / "model.json").read_text())
    model["modelTopology"]["node"].append({"name": "label", "op": "Const", "attr": {}})
    weight = {"name": "label", "shape": [2], "dtype": "string"}
    model["weightsManifest"] = [{"paths": ["shard.bin"], "weights": [weight]}]
    (folder / "shard.bin").write_bytes(b"\3\0\0\0yes\2\0\0\0no")
    (folder / "model.json").write_text(json.dumps(model))
    with pytest.raises(
        errors.ConfigError, match=r"output 'label' is string.*Choose among .* with `outputs"
    ):
        models.load(spec(folder))
    chosen = models.load(spec(folder, outputs=("y",)))
    np.testing.assert_array_equal(chosen.predict(examples(x=[True, False]))[""], [1, 0])


def test_open_sizes_are_the_rows(tfjs_models, examples):
    tokens = np.random.default_rng(7).normal(size=(3, 4, 2)).astype(np.float32)
    predictions = models.load(spec(tfjs_models / "open")).predict(examples(tokens=lists(tokens)))
    close(predictions[""], tokens.mean(axis=1))


# Models that cannot run are reported before the data is read.


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("custom", {}, r"'v3' \(.*\): .*op 'FrobnicateV2' is not available in TensorFlow.js 4"),
        ("text", {}, "input 'x' takes string; in TensorFlow.js, a column can fill float32,"),
        ("fixed", {}, r"'x' has the shape \[8, 3\], so it takes only batches of 8. Export"),
        (
            "unflattened",
            {},
            r"is float32 of shape \[None, 2, 2, 2\]; only numbers of shape \[None\]",
        ),
        ("two", {"outputs": ("on",)}, "unknown output 'on'.*'one', 'two'. Did you mean 'one'"),
        ("dense", {"inputs": (("X", "a"),)}, "maps 'X', but the model's inputs are 'x'"),
    ],
)
def test_mismatches_are_rejected_at_load(tfjs_models, name, fields, message):
    with pytest.raises(errors.ConfigError, match=message):
        models.load(spec(tfjs_models / name, **fields))


def test_files_that_are_not_a_model_are_rejected(written):
    with pytest.raises(errors.ConfigError, match=r"path must be the folder with the model.json"):
        models.load(spec(written / "model.json"))
    for content, message in [
        ("{", "its model.json is not valid JSON"),
        ("[]", "format None; valid formats: 'graph-model', 'layers-model'"),
        ('{"format": "tfjs-model"}', "format 'tfjs-model'; valid formats: "),
        (
            '{"format": "layers-model", "weightsManifest": [{"weights": []}]}',
            r"list of weights in its model.json is malformed \(KeyError\('paths'\)\)",
        ),
    ]:
        (written / "model.json").write_text(content)
        with pytest.raises(errors.ConfigError, match=message):
            models.load(spec(written))


def test_a_layer_that_it_does_not_have(copy):
    folder = copy("dense")
    topology = {"class_name": "Mine", "config": {}}
    manifest = [{"paths": [], "weights": []}]
    model = {"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(model))
    with pytest.raises(errors.ConfigError, match="js cannot run it: Unknown layer: Mine"):
        models.load(spec(folder))


def test_shards_that_are_missing_or_cut_short_are_named(written):
    shard = written / "shard1.bin"
    shard.write_bytes(shard.read_bytes()[:-10])
    message = r"are 74 bytes, but its model.json lists 84: one of shard1.bin \(73 bytes\), shard2"
    with pytest.raises(errors.ConfigError, match=message):
        models.load(spec(written))
    shard.unlink()
    with pytest.raises(
        errors.ConfigError, match=r"lists the weights shard1.bin, but its folder has no"
    ):
        models.load(spec(written))


def test_weights_are_listed_and_within_the_folder(written):
    description = json.loads((written / "model.json").read_text())
    description["weightsManifest"][0]["paths"][0] = "../shard1.bin"
    (written / "model.json").write_text(json.dumps(description))
    with pytest.raises(errors.ConfigError, match=r"weights \.\./shard1.bin, outside its folder"):
        models.load(spec(written))
    del description["weightsManifest"]
    (written / "model.json").write_text(json.dumps(description))
    with pytest.raises(
        errors.ConfigError, match="lists no weights, so it would predict with random"
    ):
        models.load(spec(written))


COMMAND = "npm ci --ignore-scripts --no-audit --no-fund --prefix .*transforms/models/tfjs`"


def fake_node(folder, prints):
    """A PATH with a `node` that does nothing else."""
    (folder / "node").write_text(f"#!/bin/sh\n{prints}\n")
    (folder / "node").chmod(0o755)
    return str(folder)


def test_no_node(written, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ConfigError, match=f"no `node` on the PATH.*or newer.*{COMMAND}"):
        models.load(spec(written))


@pytest.mark.parametrize(
    ("prints", "told"),
    [
        ("echo v12.0.0", "is v12.0.0"),
        ("exit 1", "is of unknown version"),
        (r"printf '\377\376'", "\ufffd"),
    ],
)
def test_an_old_node(written, monkeypatch, tmp_path, prints, told):
    monkeypatch.setenv("PATH", fake_node(tmp_path, prints))
    with pytest.raises(errors.ConfigError, match=f"need Node.js 16 or newer.*{told}.*{COMMAND}"):
        models.load(spec(written))


def test_no_packages_or_others(written, monkeypatch, tmp_path):
    folder = tmp_path / "transforms/models/tfjs"
    folder.mkdir(parents=True)
    shutil.copy(install.FOLDER / "package.json", folder)
    monkeypatch.setattr(install, "FOLDER", folder)
    monkeypatch.setenv("PATH", fake_node(tmp_path, "echo v20.1.0"))
    message = f"need the npm package @tensorflow/tfjs 4.*it is not installed. Run `{COMMAND}"
    with pytest.raises(errors.ConfigError, match=message):
        models.load(spec(written))
    package = folder / "node_modules/@tensorflow/tfjs/package.json"
    package.parent.mkdir(parents=True)
    package.write_text("{")  # as an installation that broke off leaves it
    assert "it is not installed. Run" in install.missing()
    package.write_text('{"version": "3.1.0"}')
    assert "but 3.1.0 is installed. Run" in install.missing()


def test_what_is_missing_is_found_without_loading_anything_heavy():
    program = (
        "import sys; from evalbeam.transforms.models.tfjs import install; install.missing(); "
        "assert not {'tensorflow', 'keras', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# The process.


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # Nobody may wait for the orphans of a container.


def wait_for_end(pid):
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_a_crash_is_reported_with_its_output_and_in_every_later_call(
    copy, examples, monkeypatch, tmp_path
):
    (tmp_path / "talk.cjs").write_text('for (const n of "abc") console.error("word", n);')
    monkeypatch.setenv("NODE_OPTIONS", f"--require {tmp_path / 'talk.cjs'}")
    model = models.load(spec(copy("dense")))
    data = examples(x=lists(X))
    model.predict(data)
    os.kill(model.pid, signal.SIGKILL)
    message = rf"process {model.pid} ended by signal SIGKILL.*`batch_size`.*stderr:\nword a\nword b"
    for _ in range(2):
        with pytest.raises(errors.JobError, match=f"(?s){message}"):
            model.predict(data)


def test_a_process_that_ends_while_it_starts(copy, monkeypatch, tmp_path):
    (tmp_path / "fail.cjs").write_text('throw new Error("no such luck")')
    monkeypatch.setenv("NODE_OPTIONS", f"--require {tmp_path / 'fail.cjs'}")
    with pytest.raises(errors.ConfigError, match=r"(?s)ended with exit code 1.*no such luck"):
        models.load(spec(copy("dense")))


def test_a_process_that_closes_its_pipe_and_goes_on_is_ended(copy, monkeypatch, tmp_path):
    (tmp_path / "hang.cjs").write_text('require("fs").closeSync(1); for (;;);')
    monkeypatch.setenv("NODE_OPTIONS", f"--require {tmp_path / 'hang.cjs'}")
    monkeypatch.setattr(node, "_END_SECONDS", 0.1)
    with pytest.raises(errors.ConfigError, match="ended by signal SIGKILL"):
        models.load(spec(copy("dense")))


def test_much_on_stderr_stops_nothing(copy, examples, monkeypatch, tmp_path):
    (tmp_path / "talk.cjs").write_text('console.error("word ".repeat(1 << 18))')
    monkeypatch.setenv("NODE_OPTIONS", f"--require {tmp_path / 'talk.cjs'}")
    assert len(models.load(spec(copy("dense"))).predict(examples(x=lists(X)))[""]) == 3


def test_a_call_that_is_broken_off_ends_the_process(copy, examples, monkeypatch):
    model = models.load(spec(copy("dense")))

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(node, "_write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.predict(examples(x=lists(X)))
    with pytest.raises(errors.JobError, match=r"interrupted by KeyboardInterrupt\(\)"):
        model.predict(examples(x=lists(X)))


def test_more_than_webassembly_can_hold_is_refused_and_less_still_runs(tfjs_models, examples):
    model = models.load(spec(tfjs_models / "wide"))
    before = model.predict(examples(x=lists(X)))[""]
    # 4 GiB to the byte, which 32 bits take for nothing.
    with pytest.raises(RuntimeError, match="has no room for another 4294967296 bytes"):
        model.predict(examples(x=lists(np.zeros((32768, 3), np.float32))))
    np.testing.assert_array_equal(model.predict(examples(x=lists(X)))[""], before)


@needs_proc
def test_memory_does_not_grow(tfjs_models):
    process = node.Process(str(tfjs_models / "two"))
    arrays = {name: np.ones((10_000, size), np.float32) for name, size in (("age", 1), ("x", 3))}
    megabytes = []
    for _ in range(5):
        for _ in range(700):
            process.predict(arrays)
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        megabytes.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
    # A tensor left behind by each batch would be at least 108 MB in the end. Node.js' own memory
    # goes up and down by some 30.
    assert megabytes[-1] - megabytes[0] < 60, megabytes


@needs_proc
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit()", "raise ValueError"])
def test_no_process_is_left_behind(tfjs_models, end):
    program = (
        "import os, sys; from evalbeam.transforms import models\n"
        f"model = models.load(models.ModelSpec('v', 'tfjs', {str(tfjs_models / 'dense')!r}))\n"
        f"print(model.pid, flush=True)\n{end}"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert wait_for_end(int(result.stdout)), result.stderr


@needs_proc
def test_a_model_that_nobody_has_any_more_takes_its_process_with_it(copy):
    model = tfjs.load(spec(copy("dense")), str(copy("conv")))
    pid = model.pid
    assert alive(pid)
    del model
    assert wait_for_end(pid)


@needs_proc
def test_no_socket_is_opened(tfjs_models, examples):
    model = models.load(spec(tfjs_models / "dense"))
    model.predict(examples(x=lists(X)))
    opened = [os.readlink(link) for link in pathlib.Path(f"/proc/{model.pid}/fd").iterdir()]
    assert len(opened) > 3
    assert [file for file in opened if file.startswith("socket:")] == []


def test_no_network_is_needed(copy, examples, monkeypatch, tmp_path):
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "true"], capture_output=True).returncode
    ):
        pytest.skip("unshare cannot take the network from a process here")
    wrapper = tmp_path / "node"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(alone)} {shutil.which("node")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert len(models.load(spec(copy("dense"))).predict(examples(x=lists(X)))[""]) == 3
