"""The whole job with networks of images: encoded and raw, scaled by the config."""

import io

import jsonschema
import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn import datasets
from sklearn import metrics as sklearn_metrics

from evalbeam.beam_jobs import check, config
from evalbeam.beam_jobs.config import settings
from evalbeam.transforms import errors
from evalbeam.transforms.models import images


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, kind)
    return file.getvalue()


def write_tfrecord(path, rows):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            example = tf.train.Example()
            features = example.features.feature
            features["png"].bytes_list.value.append(row["png"])
            features["pixels"].float_list.value.extend(row["pixels"])
            features["digit"].int64_list.value.append(row["digit"])
            writer.write(example.SerializeToString())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """scikit-learn's 1,797 digits of 8 x 8 pixels in three formats; a small Conv2D network."""
    import keras

    folder = tmp_path_factory.mktemp("world")
    digits = datasets.load_digits()
    frame = pd.DataFrame(
        {
            "png": [encoded(image.astype(np.uint8)) for image in digits.images],
            "pixels": digits.data.tolist(),
            "digit": digits.target,
        }
    )
    frame.to_parquet(folder / "digits.parquet", row_group_size=700)
    write_tfrecord(folder / "digits.tfrecord", frame.to_dict("records"))
    nested = pd.DataFrame({"pixels": digits.images.tolist(), "digit": digits.target})
    nested.to_json(folder / "digits.jsonl", orient="records", lines=True)

    keras.utils.set_random_seed(5)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    taken = digits.images[..., np.newaxis] / 16
    network.fit(taken, digits.target, epochs=3, verbose=0)
    network.save(folder / "network.keras")
    return folder, digits.target, network.predict(taken, verbose=0).argmax(axis=1)


IMAGES = {
    "parquet": {"column": "png", "scale": "1/16"},
    "tfrecord": {"column": "png", "size": [8, 8], "channels": 1, "scale": "1/16"},
    "jsonl": {"column": "pixels", "shape": [8, 8, 1], "scale": "1/16"},
}


def job(folder, format_name, **image):
    return {
        "data": {
            "files": str(folder / f"digits.{format_name}"),
            "label": "digit",
            "images": {"image": {**IMAGES[format_name], **image}},
        },
        "models": [{"name": "v1", "path": str(folder / "network.keras")}],
        "metrics": ["ExampleCount", "Precision", "Recall", "F1Score"],
    }


@pytest.mark.parametrize("format_name", IMAGES)
def test_metrics_by_class_match_scikit_learn(run_job, world, format_name):
    folder, truth, predicted = world
    run = run_job(job(folder, format_name))
    found = pd.read_parquet(run / "metrics.parquet")
    report = sklearn_metrics.classification_report(truth, predicted, output_dict=True)
    assert report["accuracy"] > 0.8
    by_class = found.dropna(subset="class_id").set_index(["metric", "class_id"])["value"]
    macro = found[found["aggregation"] == "macro"].set_index("metric")["value"]
    for metric, name in (
        ("precision", "precision"),
        ("recall", "recall"),
        ("f1_score", "f1-score"),
    ):
        for digit in range(10):
            assert by_class[metric, digit] == pytest.approx(report[str(digit)][name], rel=1e-12)
        assert macro[metric] == pytest.approx(report["macro avg"][name], rel=1e-12)
    confusion = pd.read_parquet(run / "confusion.parquet")
    matrix = np.zeros((10, 10))
    matrix[confusion["actual"], confusion["predicted"]] = confusion["count"]
    np.testing.assert_array_equal(matrix, sklearn_metrics.confusion_matrix(truth, predicted))


def test_images_in_structs_as_written_by_huggingface(run_job, evalbeam, world, tmp_path):
    folder, truth, predicted = world
    frame = pd.read_parquet(folder / "digits.parquet")
    frame["image"] = [{"bytes": png, "path": f"{i % 2}.png"} for i, png in enumerate(frame["png"])]
    frame[["image", "digit"]].to_parquet(tmp_path / "nested.parquet", row_group_size=700)
    data = job(folder, "parquet", column="image.bytes")
    data["data"]["files"] = "nested.parquet"
    data["slices"] = [["image.path"]]
    run = run_job(data)
    found = pd.read_parquet(run / "confusion.parquet")
    for part in (0, 1):
        cells = found[found["slice"] == f"image.path={part}.png"]
        matrix = np.zeros((10, 10))
        matrix[cells["actual"], cells["predicted"]] = cells["count"]
        expected = sklearn_metrics.confusion_matrix(truth[part::2], predicted[part::2])
        np.testing.assert_array_equal(matrix, expected)
    data["data"]["images"]["image"]["column"] = "image"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(data))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "'image.bytes', 'image.path'" in result.output


def test_versions_take_one_column_scaled_differently(run_job, world, tmp_path):
    """A copy of the network that divides by 16 itself gives the same results on raw images."""
    import keras

    folder, truth, predicted = world
    network = keras.models.load_model(folder / "network.keras")
    taken = keras.Input((8, 8, 1), name="whole")
    scaled = keras.layers.Rescaling(1 / 16)(taken)
    keras.Model(taken, network(scaled)).save(tmp_path / "whole.keras")
    coloured = keras.Input((3, 8, 8), name="coloured")
    grey = keras.layers.Permute((2, 3, 1))(coloured[:, 1:2])
    keras.Model(coloured, network(grey)).save(tmp_path / "coloured.keras")
    data = job(folder, "parquet")
    data["data"]["images"] |= {
        "as_it_is": {"column": "png"},
        "coloured": {
            "column": "png", "channels": 3, "channels_first": True, "scale": [1, "1/16", 0]
        },
        "unused": {"column": "png"},
    }  # fmt: skip
    data["models"] += [
        {"name": "whole", "path": "whole.keras", "inputs": {"whole": "as_it_is"}},
        {"name": "coloured", "path": "coloured.keras"},
        {"name": "raw", "path": data["models"][0]["path"], "inputs": {"image": "raw"}},
    ]
    data["data"]["images"]["raw"] = {"column": "pixels", "shape": [8, 8, 1], "scale": "1/16"}
    found = pd.read_parquet(run_job(data) / "confusion.parquet")
    expected = sklearn_metrics.confusion_matrix(truth, predicted)
    for _, cells in found.groupby("model", observed=True):
        matrix = np.zeros((10, 10))
        matrix[cells["actual"], cells["predicted"]] = cells["count"]
        np.testing.assert_array_equal(matrix, expected)
    assert set(found["model"]) == {"v1", "whole", "coloured", "raw"}
    checked = check.check(config.Config.model_validate(data))
    assert "data.images that no model takes: unused" in checked.notes


CAT, DOG = 0, 1
# The number of pictures by (truth, what it looks like): the matrix of a Conv2D classifier.
LOOKS = {(CAT, CAT): 50, (CAT, DOG): 10, (DOG, CAT): 5, (DOG, DOG): 35}


@pytest.fixture
def pets(tmp_path):
    """100 JPEG pictures, where cats look dark, and a network that decides by brightness."""
    import keras

    rng = np.random.default_rng(2)
    taken = keras.Input((6, 6, 3), name="picture")
    mean = keras.layers.Conv2D(1, 6, use_bias=False, kernel_initializer="ones")(taken)
    scores = keras.layers.Dense(2, activation="softmax")
    network = keras.Model(taken, scores(keras.layers.Flatten()(mean)))
    # The sum of 108 values between 0 and 1 is above 54 for bright pictures.
    scores.set_weights([np.array([[-1.0, 1.0]]), np.array([54.0, -54.0])])
    network.save(tmp_path / "pets.keras")
    rows = [
        (truth, encoded(rng.integers(130 * look, 120 + 130 * look, (9, 12, 3), np.uint8), "JPEG"))
        for (truth, look), count in LOOKS.items()
        for _ in range(count)
    ]
    labels, pictures = zip(*(rows[row] for row in rng.permutation(len(rows))), strict=True)
    return pa.table({"picture": pa.array(pictures, pa.binary()), "is": labels})


PETS = {
    "task": "multiclass",
    "data": {
        "files": "pets.parquet",
        "label": "is",
        "images": {"picture": {"size": [6, 6], "channels": 3, "scale": "1/255"}},
    },
    "models": [{"name": "v1", "path": "pets.keras"}],
    "metrics": ["ExampleCount", "Precision", "Recall", "F1Score"],
}


def test_cats_and_dogs(run_job, pets, tmp_path):
    pq.write_table(pets, tmp_path / "pets.parquet")
    run = run_job(PETS)
    matrix = pd.read_parquet(run / "confusion.parquet").set_index(["actual", "predicted"])["count"]
    assert matrix.to_dict() == LOOKS
    found = pd.read_parquet(run / "metrics.parquet").dropna(subset="class_id")
    cat = found[found["class_id"] == CAT].set_index("metric")["value"]
    assert cat["precision"] == pytest.approx(50 / 55)
    assert cat["recall"] == pytest.approx(50 / 60)
    assert round(cat["f1_score"], 2) == 0.87


def test_damaged_pictures_are_dead_letters(run_job, evalbeam, pets, tmp_path):
    pictures = pets["picture"].to_pylist()
    pictures[3] = pictures[3][:-40]
    pictures[4] = None
    pictures[70] = b"<html>404 not found</html>"
    damaged = pets.set_column(0, "picture", pa.array(pictures, pa.binary()))
    pq.write_table(damaged, tmp_path / "pets.parquet")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(PETS))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2
    assert "3 of 100 rows could not be scored" in result.output
    assert (
        "row 5 (counted from 1): version 'v1': image 'picture' of column 'picture': no image"
        in (" ".join(result.output.split()))
    )
    run = run_job({**PETS, "data": {**PETS["data"], "max_dead_letters": 0.05}})
    letters = pd.read_json(run / "dead_letter" / "rows.jsonl", lines=True).set_index("position")
    assert "cannot be decoded: image file is truncated" in letters["reason"][3]
    assert "is neither PNG nor JPEG: it starts with b'<html>40'" in letters["reason"][70]
    assert sorted(letters.index) == [3, 4, 70]
    assert pd.read_parquet(run / "metrics.parquet")["n"].unique().tolist() == [97]


def test_batches_of_large_images_are_small(pets, tmp_path, monkeypatch):
    """The size that counts is that of decoded pictures: kilobytes become megabytes."""
    import keras

    monkeypatch.chdir(tmp_path)
    pq.write_table(pets, tmp_path / "pets.parquet")
    assert check.check(config.Config.model_validate(PETS)).batch_size == 16_384
    taken = keras.Input((512, 512, 3), name="picture")
    pooled = keras.layers.GlobalAveragePooling2D()(taken)
    keras.Model(taken, keras.layers.Dense(2, "softmax")(pooled)).save(tmp_path / "pets.keras")
    image = {**PETS["data"]["images"]["picture"], "size": [512, 512]}
    large = {**PETS, "data": {**PETS["data"], "images": {"picture": image}}}
    calls, decode = [], images.Image._decode
    monkeypatch.setattr(
        images.Image, "_decode", lambda self, blob: calls.append(1) or decode(self, blob)
    )
    assert check.check(config.Config.model_validate(large)).batch_size == 10  # of 3 MB each
    assert len(calls) < 40  # and of the first batch, models get 10


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"size": [9, 9], "channels": 3}, "Set `size: [6, 6]` for this image"),
        ({"channels": 3}, "but the image has [9, 12, 3]. Set `size: [6, 6]` for this image"),
        ({"size": [6, 6], "channels": 1}, "Set `channels: 3` for this image"),
        ({"column": "pictures"}, "(image 'picture' of column 'pictures') has no column in the"),
        ({"shape": [6, 6, 3]}, "it is an encoded image: remove `shape`"),
    ],
)
def test_images_that_do_not_fit_the_network(evalbeam, pets, tmp_path, image, message):
    pq.write_table(pets, tmp_path / "pets.parquet")
    wrong = {**PETS, "data": {**PETS["data"], "images": {"picture": image}}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(wrong))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2, result.output
    assert "Version 'v1'" in result.output
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_formats_without_bytes(evalbeam, pets, tmp_path, name):
    frame = pd.DataFrame({"picture": ["a.jpg", "b.jpg"], "is": [0, 1]})
    if name == "csv":
        frame.to_csv(tmp_path / "pets.csv", index=False)
    else:
        frame.to_json(tmp_path / "pets.jsonl", orient="records", lines=True)
    wrong = {**PETS, "data": {**PETS["data"], "files": f"pets.{name}"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(wrong))
    result = evalbeam("run", "job.yaml")
    assert result.exit_code == 2, result.output
    assert "Paths and base64 are not supported" in result.output


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"sclae": 2}, "data.images.a.sclae: unknown key 'sclae'; did you mean 'scale'? valid"),
        ({"scale": "1/0"}, "data.images.a.scale: '1/0' is not a finite number; write a number, a "),
        ({"scale": "1/"}, "scale: '1/' is not a finite number"),
        ({"scale": "1/2/3"}, "scale: '1/2/3' is not a finite number"),
        ({"scale": "a lot"}, "scale: 'a lot' is not a finite number"),
        ({"scale": True}, "scale: true is not a finite number"),
        ({"offset": [1, float("nan"), 2]}, "offset: .nan is not a finite number"),
        ({"offset": []}, "data.images.a.offset: the list is empty; write a number"),
        ({"scale": 0}, "`scale: 0` makes all images equal"),
        ({"size": [8]}, "`size` must be [height, width], integers of at least 1, not [8]"),
        ({"size": [8, 0]}, "`size` must be [height, width], integers of at least 1, not [8, 0]"),
        ({"size": 8}, "data.images.a.size: must be a list, not 8"),
        ({"size": [10**6, 10**6]}, "exceeds the maximum of 89,478,485 pixels"),
        (
            {"shape": [8, 8]},
            "`shape` must be [height, width, channels], integers of at least 1, not",
        ),
        ({"shape": [8, 8, 1], "channels": 1}, "`channels: 1` is for encoded images, but `shape: ["),
        ({"channels": 2}, "data.images.a.channels: must be one of 1, 3 or 4, not 2"),
        (
            {"size": [8, 8], "interpolation": "bilinar"},
            "unknown interpolation 'bilinar'; did you mean 'bilinear'? valid interpolations: near",
        ),
        ({"interpolation": "box"}, "`interpolation: box` has no effect without `size`: add"),
        (
            {"scale": [1, 2, 3]},
            "`scale` has 3 numbers, one per channel: set the number of channels",
        ),
        ({"channels": 3, "scale": [1, 2]}, "`scale` has 2 numbers, but the image has 3 channels"),
        ({"shape": [8, 8, 2], "offset": [1, 2, 3]}, "`offset` has 3 numbers, but the image has 2 "),
    ],
)
def test_invalid_declarations(tmp_path, image, message):
    path = tmp_path / "job.yaml"
    data = {**PETS["data"], "images": {"a": image}}
    path.write_text(yaml.safe_dump({**PETS, "data": data}))
    with pytest.raises(errors.ConfigError) as caught:
        config.load(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/255", (1 / 255,)),
        ("-1 / 3", (-1 / 3,)),
        ("2", (2.0,)),
        ("1/127.5", (1 / 127.5,)),
        ("1e-3", (0.001,)),
        ("[1/16, 0.5, '2']", (0.0625, 0.5, 2.0)),
    ],
)
def test_numbers_and_fractions(tmp_path, text, expected):
    path = tmp_path / "job.yaml"
    declared = yaml.safe_load(f"a: {{channels: 3, scale: {text}, offset: {text}}}")
    path.write_text(yaml.safe_dump({**PETS, "data": {**PETS["data"], "images": declared}}))
    loaded, _ = config.load(path)
    image = loaded.data.images["a"].resolve("a")
    assert (image.column, image.scale, image.offset) == ("a", expected, expected)
    jsonschema.validate(declared["a"], settings.Image.model_json_schema())
