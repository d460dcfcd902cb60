"""Images are read as in TensorFlow and Keras; what cannot be read is reported."""

import io
import re
import struct
import zlib

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from evalbeam.transforms import arrow, batch, errors, models
from evalbeam.transforms.models import columns, images

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (6, 5), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 5, 4), np.uint8)
# Smooth, as photographs are: decoders of JPEG differ most at edges.
_Y, _X = np.mgrid[:40, :30]
PHOTO = np.stack([128 + 100 * np.sin(_X / (7 + c) + _Y / 9) for c in range(3)], -1).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette(**options):
    return encoded(PIL.Image.fromarray(COLOUR).quantize(7), **options)


def pictures(image, column):
    """The column's images as a callable gets them, which accepts any shape."""
    record = pa.RecordBatch.from_arrays([column], [image.column])
    shard = batch.Shard("eval", "data/eval-0", "parquet")
    declared = columns.Input("x", image.column, np.dtype(np.float32), None, image)
    data = batch.Batch(shard, np.arange(len(column)), record)
    return columns.arrays((declared,), data)["x"]


def pixels(*blobs, **fields):
    return pictures(images.Image("png", **fields), pa.array(blobs, pa.binary()))


def reasons(call, *arguments):
    with pytest.raises(arrow.UnscorableRowsError) as caught:
        call(*arguments)
    return caught.value.reasons


PNGS = {
    "grey": encoded(GREY),
    "colour": encoded(COLOUR),
    "alpha": encoded(ALPHA),
    "grey with alpha": encoded(PIL.Image.fromarray(ALPHA[:, :, 2:].copy(), "LA")),
    "palette": palette(),
    "1 bit": encoded(PIL.Image.fromarray(GREY > 127)),
    "interlaced sizes": encoded(RNG.integers(0, 256, (1, 17, 3), np.uint8)),
}


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
@pytest.mark.parametrize("name", PNGS)
def test_pngs_are_tensorflows(name, channels):
    import tensorflow as tf

    expected = tf.io.decode_png(PNGS[name], channels=channels).numpy()
    found = pixels(PNGS[name], channels=channels)
    assert found.dtype == np.float32
    if channels == 4 and name in ("palette", "1 bit"):
        # TensorFlow fills alpha with the most that the file's 4 or 1 bits hold.
        assert (found[..., 3] == 255).all()
        found, expected = found[..., :3], expected[..., :3]
    # Grey of colours: both weigh by ITU-R 601, TensorFlow's library rounds down.
    mixes = channels == 1 and name in ("colour", "alpha", "palette", "interlaced sizes")
    np.testing.assert_allclose(found[0], expected, atol=1 if mixes else 0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_transparency_that_is_not_wanted_is_dropped_and_not_blended(channels):
    see_through = palette(transparency=bytes([0, 128, 255]))
    found = pixels(see_through, channels=channels)
    with PIL.Image.open(io.BytesIO(see_through)) as image:
        rgba = np.asarray(image.convert("RGBA"))
    grey = np.asarray(PIL.Image.fromarray(rgba[:, :, :3].copy()).convert("L"))[:, :, None]
    np.testing.assert_array_equal(found[0], grey if channels == 1 else rgba[:, :, :channels])
    assert pixels(see_through).shape == (1, 6, 5, 4)


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_16_bit_grey_keeps_its_precision(channels):
    import tensorflow as tf

    deep = RNG.integers(0, 2**16, (6, 5), np.uint16)
    deep[0, :2] = 0, 2**16 - 1
    blob = encoded(deep)
    np.testing.assert_array_equal(tf.io.decode_png(blob, dtype=tf.uint16)[:, :, 0], deep)
    found = pixels(blob, encoded(GREY), channels=channels)
    np.testing.assert_array_equal(found[0, :, :, 0], deep / np.float32(257))
    np.testing.assert_array_equal(found[0, 0, :2, 0], [0, 255])
    assert len(np.unique(found[0, :, :, 0])) == len(np.unique(deep))
    np.testing.assert_array_equal(found[1, :, :, 0], GREY)
    if channels == 4:
        assert (found[:, :, :, 3] == 255).all()


def test_16_bit_colour_has_its_upper_8_bits():
    import tensorflow as tf

    deep = RNG.integers(0, 2**16, (6, 5, 3)).astype(np.uint16)
    blob = tf.io.encode_png(deep).numpy()
    np.testing.assert_array_equal(pixels(blob)[0], deep >> 8)


@pytest.mark.parametrize("kind", ["colour", "grey", "cmyk", "progressive"])
def test_jpegs_are_nearly_tensorflows(kind):
    import tensorflow as tf

    image = PIL.Image.fromarray(PHOTO)
    image = image.convert({"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB"))
    blob = encoded(image, "JPEG", quality=90, progressive=kind == "progressive")
    for channels in (3,) if kind == "cmyk" else (1, 3):  # TensorFlow has no grey of CMYK.
        expected = tf.io.decode_jpeg(blob, channels=channels, dct_method="INTEGER_ACCURATE")
        found = pixels(blob, channels=channels)[0]
        np.testing.assert_allclose(found, expected.numpy().astype(float), atol=4)


def test_exif_orientation_is_not_applied():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = encoded(PHOTO, "JPEG", exif=exif)
    assert pixels(turned).shape == (1, 40, 30, 3)


@pytest.mark.parametrize("interpolation", images.INTERPOLATIONS)
@pytest.mark.parametrize(("channels", "mode"), [(1, "grayscale"), (3, "rgb"), (4, "rgba")])
@pytest.mark.parametrize("size", [(3, 4), (40, 31)])
def test_resizing_is_that_of_load_img(interpolation, channels, mode, size):
    import keras

    for blob in (encoded(ALPHA), encoded(PHOTO, "JPEG"), PNGS["palette"]):
        loaded = keras.utils.load_img(
            io.BytesIO(blob), color_mode=mode, target_size=size, interpolation=interpolation
        )
        expected = keras.utils.img_to_array(loaded)
        found = pixels(blob, channels=channels, size=size, interpolation=interpolation)
        np.testing.assert_array_equal(found[0], expected)


def test_raw_numbers_are_resized_as_floats():
    ramp = np.arange(16, dtype=float).reshape(1, 4, 4, 1) / 7
    image = images.Image("x", shape=(4, 4, 1), size=(2, 2), interpolation="box")
    expected = ramp.reshape(2, 2, 2, 2).mean(axis=(1, 3)).reshape(1, 2, 2, 1)
    found = pictures(image, pa.array(ramp.reshape(1, -1).tolist()))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [(1 / 255,), (1 / 255, 0.5, -2.0)])
@pytest.mark.parametrize("offset", [(0.0,), (-1.0,), (-0.485, -0.456, -0.406)])
def test_scaling_is_that_of_keras_rescaling(scale, offset):
    import keras

    layer = keras.layers.Rescaling(list(scale), list(offset))
    expected = np.asarray(layer(COLOUR[None].astype(np.float32)))
    found = pixels(PNGS["colour"], scale=scale, offset=offset)
    np.testing.assert_array_equal(found, expected)
    first = pixels(PNGS["colour"], scale=scale, offset=offset, channels_first=True)
    np.testing.assert_array_equal(first, expected.transpose(0, 3, 1, 2))
    assert first.flags.c_contiguous


RAW = RNG.integers(0, 256, (3, 2, 2, 3))
FLAT = RAW.reshape(3, -1).tolist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(FLAT),
        pa.array(FLAT, pa.large_list(pa.float32())),
        pa.array(FLAT, pa.list_(pa.uint8(), 12)),
        pa.array(RAW.tolist()),
        pa.array(RAW.tolist(), pa.list_(pa.list_(pa.list_(pa.float64(), 3), 2), 2)),
        pa.FixedShapeTensorArray.from_numpy_ndarray(RAW),
        pa.array(map(bytes, FLAT), pa.binary()),
        pa.array(map(bytes, FLAT), pa.binary(12)),
        pa.array([[bytes(row)] for row in FLAT], pa.large_list(pa.large_binary())),
        pa.array(map(bytes, FLAT), pa.binary()).dictionary_encode(),
    ],
    ids=lambda column: str(column.type)[:40],
)
def test_raw_arrays_of_every_arrow_type(column):
    image = images.Image("x", shape=(2, 2, 3))
    np.testing.assert_array_equal(pictures(image, column), RAW)
    np.testing.assert_array_equal(pictures(image, column.slice(1)), RAW[1:])


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.list_(pa.binary()),
        pa.large_list(pa.large_binary()),
        pa.large_list(pa.dictionary(pa.int32(), pa.large_binary())),  # As TFRecords are read.
    ],
    ids=str,
)
def test_encoded_images_of_every_arrow_type(kind):
    blobs = [PNGS["grey"], encoded(255 - GREY), PNGS["grey"]]
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    column = pa.array([[blob] if listed else blob for blob in blobs], kind)
    found = pictures(images.Image("png"), column)
    np.testing.assert_array_equal(found[:, :, :, 0], [GREY, 255 - GREY, GREY])
    np.testing.assert_array_equal(pictures(images.Image("png"), column.slice(1)), found[1:])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_in_threads_come_in_order(monkeypatch, kind):
    noise = RNG.integers(0, 256, (50, 64, 64), np.uint8)
    blobs = [encoded(one, kind) for one in noise]
    blobs[7] = blobs[7][:100]
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert reasons(pixels, *blobs).keys() == {7}
    del blobs[7]
    threaded = pixels(*blobs)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    np.testing.assert_array_equal(threaded, pixels(*blobs))


def bomb():
    """A few bytes that declare an image of 50,000 x 50,000 pixels."""
    header = struct.pack(">2L5B", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))
        for name, data in chunks
    )


GOOD = PNGS["grey"]


@pytest.mark.parametrize(
    ("blobs", "expected"),
    [
        ([GOOD, None], {1: "no image"}),
        ([[GOOD], [], [GOOD, GOOD]], {1: "no image"}),
        ([[GOOD], [GOOD, GOOD]], {1: "the row has 2 values, expected 1"}),
        ([[GOOD], [None]], {1: "no image"}),
        ([GOOD, GOOD[:60]], {1: "cannot be decoded: .*truncated"}),
        ([GOOD, GOOD[:20]], {1: "cannot be decoded: "}),
        ([GOOD, encoded(PHOTO, "JPEG")[:-200]], {1: "cannot be decoded: .*truncated"}),
        ([GOOD, b""], {1: "is neither PNG nor JPEG: it starts with b''"}),
        ([encoded(GREY, "GIF"), GOOD], {0: "is neither PNG nor JPEG: it starts with b'GIF8"}),
        ([GOOD, bomb()], {1: "has 50000 x 50000 pixels, more than the maximum of 89,478,485"}),
        (
            [GOOD, encoded(GREY[:5]), GOOD, encoded(COLOUR), GOOD[:60]],
            {4: "cannot be decoded"},  # the others are predicted by size
        ),
    ],
)
def test_rows_without_an_image(blobs, expected):
    listed = isinstance(blobs[0], list)
    column = pa.array(blobs, pa.list_(pa.binary()) if listed else pa.binary())
    found = reasons(pictures, images.Image("png", name="digit"), column)
    assert found.keys() == expected.keys()
    for row, reason in expected.items():
        assert re.search(f"image 'digit' of column 'png'.*{reason}", found[row])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([[1, 2, 3, 4], [1, 2, 3]], "expected 2 x 2 x 1 = 4 values, but the row has 3"),
        ([[1, 2, 3, 4], [1, 2, None, 4]], "a value is null, NaN or infinite"),
        ([[1, 2, 3, 4], [1, 2, 1e300, 4]], "a value is null, NaN or infinite"),
        ([[1, 2, 3, 4], None], "no image"),
        ([b"1234", b"123"], "expected 2 x 2 x 1 = 4 bytes, but the row has 3$"),
        (
            [b"1234", GOOD],
            "expected 2 x 2 x 1 = 4 bytes, but the row has .*encoded image: remove `shape`",
        ),
    ],
)
def test_rows_without_a_raw_array(column, expected):
    image = images.Image("x", shape=(2, 2, 1), name="x")
    found = reasons(pictures, image, pa.array(column))
    assert found.keys() == {1}
    assert re.search(expected, found[1])


@pytest.mark.parametrize(
    ("column", "fields", "expected"),
    [
        (["cat.png"], {}, "values of type string. Paths and base64 are not supported: put the"),
        (["cat.png"], {"shape": (1, 1, 1)}, "values of type string"),
        ([[1.0, 2.0]], {}, r"type double. .*raw arrays, set `shape: \[<height>, <width>, <ch"),
        ([7], {}, "values of type int64"),
        ([{"bytes": GOOD, "path": "x"}], {}, "struct.*Put the images' bytes into a column of bin"),
    ],
)
def test_columns_that_do_not_hold_images(column, fields, expected):
    with pytest.raises(
        errors.JobError, match=f"image 'a' of column 'x': the data has .*{expected}"
    ):
        pictures(images.Image("x", name="a", **fields), pa.array(column))


def test_damage_anywhere_is_a_reason_or_a_picture():
    rng = np.random.default_rng(11)
    blobs = []
    for whole in (*PNGS.values(), encoded(PHOTO, "JPEG"), encoded(PHOTO, "JPEG", progressive=True)):
        for _ in range(60):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                damaged[place] = rng.integers(256)
            blobs.append(bytes(damaged[: rng.integers(1, len(whole) + 200)]))
    image = images.Image("png", size=(4, 4), channels=3)
    found = reasons(pictures, image, pa.array(blobs, pa.binary()))
    healthy = [blob for row, blob in enumerate(blobs) if row not in found]
    assert len(found) > len(blobs) // 4
    assert pictures(image, pa.array(healthy, pa.binary())).shape == (len(healthy), 4, 4, 3)


def declared(dtype, shape, **fields):
    image = images.Image("png", name="digit", **fields)
    return columns.Input("x", "png", np.dtype(dtype), shape, image)


def array(examples, one, *blobs):
    return columns.arrays((one,), examples(png=pa.array(blobs or [GOOD], pa.binary())))["x"]


def test_an_input_has_its_dtype_and_shape(examples):
    for shape in ((6, 5, 1), (None, None, 1), (None, None, None), (6, 5), (None, 5)):
        found = array(examples, declared("f4", shape))
        np.testing.assert_array_equal(found, GREY.reshape(1, *found.shape[1:]))
        assert found.ndim == 1 + len(shape)
    first = declared("f4", (1, 6, 5), channels_first=True)
    np.testing.assert_array_equal(array(examples, first), GREY[None, None])
    flat = declared("f4", (6, 5), channels_first=True)
    np.testing.assert_array_equal(array(examples, flat), GREY[None])


@pytest.mark.parametrize("dtype", ["u1", "i4", "i8", "f2", "f4", "f8", "bfloat16"])
def test_every_number_holds_a_picture(examples, dtype):
    import ml_dtypes

    wanted = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    found = array(examples, declared(wanted, (6, 5, 1)))
    assert found.dtype == wanted
    np.testing.assert_array_equal(found[0, :, :, 0].astype(int), GREY)


def test_whole_numbers_survive_their_scale(examples):
    one = declared("u1", (6, 5, 1), scale=(1 / 255,))
    (reason,) = reasons(array, examples, one).values()
    assert "takes uint8, which cannot represent 0." in reason
    assert "Set `scale` and `offset` of image 'digit' of column 'png'" in reason
    one = columns.Input(
        "x", "x", np.dtype("u1"), (16, 16), images.Image("x", shape=(16, 16, 1), scale=(255.0,))
    )
    fractions = [(np.arange(256) / 255).tolist()]
    found = columns.arrays((one,), examples(x=fractions))["x"]
    np.testing.assert_array_equal(found.ravel(), np.arange(256))
    assert reasons(array, examples, declared("i1", (6, 5, 1))).keys() == {0}


@pytest.mark.parametrize(
    ("shape", "fields", "remedy"),
    [
        ((8, 8, 1), {}, r"\[8, 8, 1\], but the image has \[6, 5, 1\]. Set `size: \[8, 8\]` for"),
        ((8, None, 1), {}, r"\[8, any, 1\].* Set `size: \[8, 5\]` for"),
        ((6, 5, 3), {}, "Set `channels: 3` for this image"),
        ((8, 8, 3), {}, r"Set `size: \[8, 8\]` and `channels: 3` for"),
        ((1, 6, 5), {}, "Set `channels_first: true` for"),
        ((3, 6, 5), {}, "Set `channels_first: true` and `channels: 3` for"),
        ((6, 5, 1), {"channels_first": True}, "Set `channels_first: false` for"),
        ((1, 8, 8), {"channels_first": True}, r"Set `size: \[8, 8\]` for"),
        ((8, 8), {}, r"Set `size: \[8, 8\]` for"),
        ((6, 5, 7), {}, "The model needs images with 7 channels; these have 1"),
        ((30,), {}, "Images fill inputs of height, width and channels, or of height and width"),
    ],
)
def test_other_shapes_are_reported_with_the_remedy(examples, shape, fields, remedy):
    one = declared("f4", shape, **fields)
    (reason,) = reasons(array, examples, one).values()
    assert re.search(rf"input 'x' \(image 'digit' of col.*{remedy}", reason)
    # Where the config fixes the shape, no row could fit.
    with pytest.raises(errors.JobError, match="the image has"):
        array(examples, declared("f4", shape, size=(6, 5), channels=1, **fields))


def test_raw_arrays_keep_their_channels(examples):
    one = columns.Input(
        "x", "x", np.dtype("f4"), (2, 2, 3), images.Image("x", shape=(2, 2, 1), name="x")
    )
    with pytest.raises(errors.JobError, match="needs images with 3 channels; these have 1"):
        columns.arrays((one,), examples(x=[[1, 2, 3, 4]]))


def test_a_model_that_decodes_by_itself(examples):
    with pytest.raises(errors.JobError, match=r"takes string: the model decodes .*`inputs: \{x: p"):
        array(examples, declared(object, ()))


def test_versions_share_what_is_decoded(examples, monkeypatch):
    calls, decode = [], images.Image._decode

    def counted(self, blob):
        calls.append(blob)
        return decode(self, blob)

    monkeypatch.setattr(images.Image, "_decode", counted)
    data = examples(png=pa.array([GOOD, GOOD], pa.binary()))
    for one in (
        declared("f4", (6, 5, 1)),
        declared("f4", (None, None, 1)),
        declared("u1", (6, 5, 1)),
        declared("f4", (6, 5, 1), scale=(1 / 255,)),
        declared("f4", (1, 6, 5), channels_first=True),
    ):
        columns.arrays((one,), data)
    assert len(calls) == 2
    a, b = declared("f4", (6, 5, 1)), declared("f4", (6, 5, 1))
    assert columns.arrays((a,), data)["x"] is columns.arrays((b,), data)["x"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    import keras

    path = tmp_path_factory.mktemp("network") / "sum.keras"
    taken = keras.Input((6, 5, 1), name="picture")
    keras.Model(taken, keras.layers.GlobalAveragePooling2D()(taken)).save(path)
    return str(path)


def spec(network, column="png", **fields):
    image = images.Image(column, scale=(1 / 255,), name="picture")
    return models.ModelSpec("v1", "keras", network, **{"images": (("picture", image),), **fields})


def test_a_model_takes_images_by_name_and_by_mapping(network, examples):
    data = examples(png=pa.array([GOOD, encoded(255 - GREY)], pa.binary()))
    expected = [GREY.mean() / 255, 1 - GREY.mean() / 255]
    other = (("other", images.Image("png", scale=(1 / 255,), name="other")),)
    for one in (spec(network), spec(network, images=other, inputs=(("picture", "other"),))):
        model = models.load(one)
        assert model.projection.columns == ("png",)
        models.check_inputs(one, model, data, ())
        np.testing.assert_allclose(model.predict(data)[""], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("one", "data", "said"),
    [
        (
            {"column": "pgn"},
            {"png": [GOOD]},
            r"input 'picture' \(image 'picture' of column 'pgn'\) has no column in the data \(its "
            r"columns: 'png'\).*`data: \{images: \{picture: \{column: <column>\}\}\}`",
        ),
        (
            {"images": (("pictures", images.Image("png")),)},
            {"png": [GOOD]},
            r"input 'picture' has no column in the data .*closest image: 'pictures'",
        ),
        (
            {"images": ()},
            {"picture": [GOOD]},
            r"float32, but the data has encoded images.*`data: \{images: \{picture: ",
        ),
        ({}, {"png": [None, encoded(GREY[:5])]}, r"no row of .*Set `size: \[6, 5\]`"),
        ({}, {"png": ["a.png"]}, "Paths and base64 are not supported"),
    ],
)
def test_mismatches_are_reported_before_the_job(network, examples, one, data, said):
    wrong = spec(network, **one)
    with pytest.raises(errors.ConfigError, match=f"Version 'v1' .*{said}"):
        models.check_inputs(wrong, models.load(wrong), examples(**data), ())


def test_a_batch_of_large_images_is_halved(monkeypatch):
    blobs = [encoded(np.full((40, 30), value, np.uint8)) for value in range(16)]
    monkeypatch.setattr(images, "_BATCH_BYTES", 5 * 40 * 30)

    def halve(rows):
        try:
            return [pixels(*(blobs[row] for row in rows))]
        except arrow.UnequalRowsError as error:
            return [part for group in error.groups for part in halve(rows[group])]

    parts = halve(np.arange(16))
    assert [len(part) for part in parts] == [4, 4, 4, 4]
    np.testing.assert_array_equal(np.concatenate(parts)[:, 0, 0, 0], np.arange(16))
    monkeypatch.setattr(images, "_BATCH_BYTES", 10)
    assert pixels(blobs[3]).shape == (1, 40, 30, 1)  # a single image need not be halved
