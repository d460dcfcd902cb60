"""Decodes, resizes and scales columns of images, as declared in the config.

Encoded images are PNG or JPEG, and decode to 0 to 255 at any bit depth: 16-bit grey is divided by
257 and keeps its precision, 16-bit colour keeps its upper 8 bits. Palettes become colours, unwanted
alpha is dropped (not blended), colour becomes grey by ITU-R 601, and EXIF orientation is not
applied: all as in `keras.utils.load_img` and TensorFlow's decoders.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import pyarrow as pa

from evalbeam.transforms import arrow, errors
from evalbeam.transforms.models import threads

INTERPOLATIONS = {filter_.name.lower(): filter_ for filter_ in PIL.Image.Resampling}

# By the first bytes of an encoded image. No other Pillow plug-in is exposed to untrusted data.
_OPENERS: dict[bytes, Callable[[io.BytesIO], PIL.ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PIL.PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": PIL.JpegImagePlugin.JpegImageFile,
}
# A file of a few kilobytes can decode to gigabytes. This is the size at which Pillow warns.
MAX_PIXELS = 89_478_485
# A batch of more decoded bytes is halved; they are copied, and take four times as much as float32.
_BATCH_BYTES = 1 << 28

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# Numbers this close to a whole number are rounded to it.
_ROUNDING = 1e-3
# Threads pay off from this many bytes per image; below, most of the work holds the interpreter.
_THREADED_BYTES = 4096
# More threads would only wait for the interpreter.
_MAX_THREADS = 4


@dataclass(frozen=True)
class Image:
    """How a model's input is made from a column of images.

    Images are resized as in Pillow and Keras' load_img, with antialiasing, which TensorFlow's
    `tf.image.resize` omits by default: 8-bit images in 8 bits, others as floats.

    Attributes:
      column: the column of encoded PNG or JPEG images, or of raw arrays.
      shape: (height, width, channels) of raw arrays, which are lists of numbers in this order or
        uint8 bytes; () for encoded images.
      size: (height, width) to resize to; () to keep the size.
      channels: 1, 3 or 4, to which encoded images are converted; 0 to keep them.
      interpolation: the resizing filter, a key of INTERPOLATIONS.
      scale, offset: values are multiplied by scale, then offset is added; one number each for all
        channels or one per channel.
      channels_first: whether the result is [N, channels, height, width].
      name: the name in the config, ignored in comparisons.
    """

    column: str
    shape: tuple[int, ...] = ()
    size: tuple[int, ...] = ()
    channels: int = 0
    interpolation: str = "bilinear"
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    channels_first: bool = False
    name: str = dataclasses.field(default="", compare=False)

    def __str__(self) -> str:
        return f"image {self.name!r} of column {self.column!r}"

    @property
    def without_scaling(self) -> Image:
        """The part that `decode` depends on, equal for images that only differ in scaling."""
        return dataclasses.replace(self, scale=(1.0,), offset=(0.0,), channels_first=False)

    def decode(self, column: pa.Array) -> np.ndarray:
        """The images before scaling, uint8 or float32 [N, height, width, channels].

        Raises:
          UnscorableRowsError: rows without an image, or with a damaged one.
          UnequalRowsError: images of different sizes, or too many large ones.
          DataError: the column's type is not supported.
        """
        values, lengths = arrow.flatten(column)
        if not pa.types.is_null(values.type):
            self._check_type(values.type)
        arrow.refuse(lengths == 0, lambda row: f"{self}: no image")
        if arrow.is_number(values.type):
            return self._resize_raw(self._from_numbers(values, lengths))
        arrow.refuse(
            lengths != 1, lambda row: f"{self}: the row has {lengths[row]} values, expected 1"
        )
        missing = values.is_null().to_numpy(zero_copy_only=False)
        arrow.refuse(missing, lambda row: f"{self}: no image")
        blobs = values.cast(pa.large_binary()).to_numpy(zero_copy_only=False)
        if not self.shape:
            return self._from_encoded(blobs)
        return self._resize_raw(self._from_bytes(blobs))

    def rescale(self, images: np.ndarray) -> np.ndarray:
        """Decoded images times scale, plus offset, in float32 as in Keras' Rescaling.

        Moves channels first if declared. Without scale and offset, images keep their dtype.
        """
        if self.scale != (1.0,) or self.offset != (0.0,):
            images = images.astype(np.float32)
            images *= np.array(self.scale, np.float32)
            if any(self.offset):
                images += np.array(self.offset, np.float32)
        return np.ascontiguousarray(np.moveaxis(images, -1, 1)) if self.channels_first else images

    def fit(
        self, images: np.ndarray, dtype: np.dtype, shape: tuple[int | None, ...], what: str
    ) -> np.ndarray:
        """Converts scaled images to the rank and dtype of an input; errors call it `what`.

        Raises:
          UnscorableRowsError: rows with values outside the dtype; or all rows, if these images do
            not have the input's shape but others may.
          DataError: no image of this column can have the input's shape.
        """
        images = self._match_shape(images, shape, what)
        # Every float dtype holds 0 to 255; bfloat16 and the like, of kind V, may round.
        if dtype.kind == "V" or (images.dtype == np.uint8 and dtype.kind == "f"):
            return images.astype(dtype)
        if images.dtype != np.uint8 and dtype.kind in "iu":
            # Scaled whole numbers may be off by a rounding error.
            whole = np.rint(images)
            images = np.where(np.abs(whole - images) < _ROUNDING, whole, images)
        size = math.prod(images.shape[1:])
        remedy = f". Set `scale` and `offset` of {self} so that values are whole and in range"
        return arrow.cast(images.reshape(-1), dtype, size, what, remedy).reshape(images.shape)

    def _match_shape(
        self, images: np.ndarray, input_shape: tuple[int | None, ...], what: str
    ) -> np.ndarray:
        shape = images.shape[1:]
        if len(input_shape) == 2 and self.channels_first and shape[0] == 1:
            images = images[:, 0]
        elif len(input_shape) == 2 and not self.channels_first and shape[-1] == 1:
            images = images[..., 0]
        sizes = images.shape[1:]
        if len(input_shape) == len(sizes) and all(
            allowed in (None, size) for allowed, size in zip(input_shape, sizes, strict=True)
        ):
            return images
        reason = f"{what} takes the shape {list(input_shape)}, but the image has {list(shape)}"
        reason = f"{reason.replace('None', 'any')}. {self._remedy(input_shape, shape)}"
        if self.shape or (self.size and self.channels):  # All images have the same shape.
            raise errors.DataError(reason)
        raise arrow.UnscorableRowsError(dict.fromkeys(range(len(images)), reason))

    def _remedy(self, input_shape: tuple[int | None, ...], shape: tuple[int, ...]) -> str:
        """What to declare so that images of this shape get the input's shape."""
        if len(input_shape) == 2:
            input_shape = (1, *input_shape) if self.channels_first else (*input_shape, 1)
        if len(input_shape) != 3:
            return "Images fill inputs of height, width and channels, or of height and width"
        height, width, channels = np.roll(shape, -1) if self.channels_first else shape
        counts = {1, 3, 4, channels}
        first, last = input_shape[0] in counts, input_shape[2] in counts
        channels_first = first if first != last else self.channels_first
        keys = []
        if channels_first != self.channels_first:
            keys.append(f"`channels_first: {str(channels_first).lower()}`")
        *sizes, planes = (*input_shape[1:], input_shape[0]) if channels_first else input_shape
        if any(a not in (None, b) for a, b in zip(sizes, (height, width), strict=True)):
            keys.append(f"`size: [{sizes[0] or height}, {sizes[1] or width}]`")
        if planes not in (None, channels):
            if self.shape or planes not in (1, 3, 4):
                return f"The model needs images with {planes} channels; these have {channels}"
            keys.append(f"`channels: {planes}`")
        return f"Set {' and '.join(keys)} for this image"

    def _check_type(self, kind: pa.DataType) -> None:
        binary = arrow.is_binary(kind)
        if binary or (self.shape and arrow.is_number(kind)):
            return
        if arrow.is_number(kind):
            remedy = (
                "Without `shape`, images are encoded PNG or JPEG bytes. If these are raw arrays, "
                "set `shape: [<height>, <width>, <channels>]`"
            )
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            remedy = (
                "Paths and base64 are not supported: put the images' bytes themselves into a "
                "Parquet column of binary type or a tf.Example's bytes_list (CSV and JSON lines "
                "cannot hold bytes, but JSON lines can hold raw arrays)"
            )
        else:
            remedy = (
                "Put the images' bytes into a column of binary type, or raw arrays into a column "
                "of lists of numbers"
            )
        raise errors.DataError(f"{self}: the data has values of type {kind}. {remedy}")

    def _from_numbers(self, values: pa.Array, lengths: np.ndarray) -> np.ndarray:
        size = math.prod(self.shape)
        arrow.refuse(
            lengths != size,
            lambda row: (
                f"{self}: expected {_product(self.shape)} = {size} values, but the row has "
                f"{lengths[row]}"
            ),
        )
        with np.errstate(over="ignore"):
            array = values.to_numpy(zero_copy_only=False)
            if array.dtype != np.uint8:
                array = array.astype(np.float32)
        array = array.reshape(-1, *self.shape)
        if array.dtype == np.float32:  # A null is NaN.
            finite = np.isfinite(array).all(axis=(1, 2, 3))
            arrow.refuse(~finite, lambda row: f"{self}: a value is null, NaN or infinite")
        return array

    def _from_bytes(self, blobs: np.ndarray) -> np.ndarray:
        size = math.prod(self.shape)
        lengths = np.fromiter(map(len, blobs), np.int64, len(blobs))

        def reason(row: int) -> str:
            hint = "; it is an encoded image: remove `shape`" if _opener(blobs[row]) else ""
            return (
                f"{self}: expected {_product(self.shape)} = {size} bytes, but the row has "
                f"{lengths[row]}{hint}"
            )

        arrow.refuse(lengths != size, reason)
        return np.frombuffer(b"".join(blobs), np.uint8).reshape(-1, *self.shape)

    def _resize_raw(self, images: np.ndarray) -> np.ndarray:
        """Resizes raw images, each channel separately, as there may be any number of them."""
        if not self.size or self.size == images.shape[1:3]:
            return images
        count, *_, channels = images.shape
        resized = np.empty((count, *self.size, channels), images.dtype)
        for row in range(count):
            for channel in range(channels):
                plane = PIL.Image.fromarray(np.ascontiguousarray(images[row, :, :, channel]))
                resized[row, :, :, channel] = np.asarray(self._resize(plane))
        return resized

    def _resize(self, image: PIL.Image.Image) -> PIL.Image.Image:
        if not self.size or image.size == self.size[::-1]:
            return image
        height, width = self.size
        return image.resize((width, height), INTERPOLATIONS[self.interpolation])

    def _from_encoded(self, blobs: np.ndarray) -> np.ndarray:
        results = _map(self._decode, blobs)
        reasons = {
            row: f"{self} {result}" for row, result in enumerate(results) if isinstance(result, str)
        }
        arrays = [result for result in results if isinstance(result, np.ndarray)]
        if reasons:
            raise arrow.UnscorableRowsError(reasons)
        arrow.separate(np.array([array.shape for array in arrays]))
        return np.stack(arrays)

    def _decode(self, blob: bytes) -> np.ndarray | str:
        """The image, uint8 or float32 [height, width, channels], or what is wrong with it."""
        opener = _opener(blob)
        if opener is None:
            return f"is neither PNG nor JPEG: it starts with {blob[:8]!r}"
        try:
            image = opener(io.BytesIO(blob))
            if image.width * image.height > MAX_PIXELS:
                return (
                    f"has {image.height} x {image.width} pixels, more than the maximum of "
                    f"{MAX_PIXELS:,}"
                )
            image.load()
        except Exception as error:  # Pillow raises many kinds: SyntaxError, struct.error, ...
            return f"cannot be decoded: {error or type(error).__name__}"
        if image.mode.startswith("I"):
            return self._from_16_bits(image)
        array = np.asarray(self._resize(self._convert(image)))
        return array[:, :, np.newaxis] if array.ndim == 2 else array

    def _convert(self, image: PIL.Image.Image) -> PIL.Image.Image:
        mode = image.mode
        if mode == "P":
            # Not directly to fewer channels: Pillow warns when transparency is lost.
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        elif mode == "1":
            image = image.convert("L")
        elif mode not in _MODES.values():
            image = image.convert("RGB")
        target = _MODES.get(self.channels, image.mode)
        return image if image.mode == target else image.convert(target)

    def _from_16_bits(self, image: PIL.Image.Image) -> np.ndarray:
        grey = self._resize(PIL.Image.fromarray(np.asarray(image).astype(np.float32)))
        # Some filters overshoot the range; in 8 bits, too, values are clipped.
        array = np.clip(np.asarray(grey)[:, :, np.newaxis] / np.float32(257), 0, 255)
        if self.channels < 3:
            return array
        array = np.repeat(array, self.channels, axis=2)
        array[:, :, 3:] = 255
        return array


def _opener(blob: bytes) -> Callable[[io.BytesIO], PIL.ImageFile.ImageFile] | None:
    return next((opener for magic, opener in _OPENERS.items() if blob.startswith(magic)), None)


def _map(decode: Callable[[bytes], np.ndarray | str], blobs: np.ndarray) -> list[np.ndarray | str]:
    """Results in order; in threads where they help, as Pillow releases the interpreter lock.

    Raises UnequalRowsError, two halves, where the results are larger than a batch may be.
    """
    nbytes = 0

    def run(chunk: np.ndarray) -> list[np.ndarray | str]:
        nonlocal nbytes
        results = []
        for blob in chunk:
            results.append(result := decode(blob))
            nbytes += result.nbytes if isinstance(result, np.ndarray) else 0
            if nbytes > _BATCH_BYTES and len(blobs) > 1:
                raise arrow.UnequalRowsError(np.array_split(np.arange(len(blobs)), 2))
        return results

    workers = min(_MAX_THREADS, threads.share())
    if workers == 1 or sum(map(len, blobs)) < _THREADED_BYTES * max(2, len(blobs)):
        return run(blobs)
    # A pool per batch costs little, and a global one would not survive a fork. In chunks: handing
    # over single images takes as long as decoding small ones.
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        chunks = pool.map(run, np.array_split(blobs, 4 * workers))
        return list(itertools.chain.from_iterable(chunks))


def _product(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
