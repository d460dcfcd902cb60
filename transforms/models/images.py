"""Columns of images: decoded, resized and scaled as the config declares.

Encoded images are PNG and JPEG, and decode to 0 to 255, whatever their depth: 16-bit grey is
divided by 257 and keeps its precision, 16-bit colour keeps its upper 8 bits. Palettes become
colours, alpha that is not wanted is dropped (not blended), colour becomes grey by ITU-R 601, and
EXIF orientation is not applied: all as `keras.utils.load_img` and TensorFlow's decoders do it.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import io
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

INTERPOLATIONS = {one.name.lower(): one for one in PIL.Image.Resampling}

# By an encoded image's first bytes. No other of Pillow's many readers sees data from outside.
_OPENERS: dict[bytes, Callable[[io.BytesIO], PIL.ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PIL.PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": PIL.JpegImagePlugin.JpegImageFile,
}
# A few kilobytes can claim to be gigabytes of pixels. This is where Pillow begins to warn.
MAX_PIXELS = 89_478_485

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# So little a number may lie off a whole one, and be meant as one.
_ALMOST = 1e-3
# Threads pay from this many bytes per image: below, most of the work is Python's.
_THREADED_BYTES = 4096
# More would wait for Python.
_MOST_THREADS = 4


@dataclass(frozen=True)
class Image:
    """What a model's input is made of.

    Images are resized as Pillow and Keras' load_img do it, with antialiasing, which TensorFlow's
    `tf.image.resize` leaves out by default: those of 8 bits in 8 bits, others as floats.

    Attributes:
      column: of encoded PNG or JPEG images, or of raw arrays.
      shape: of raw arrays, (height, width, channels), lists of numbers in this order or uint8
        bytes; () for encoded images.
      size: (height, width) that images are brought to; () leaves them as they are.
      channels: 1, 3 or 4 that encoded images are brought to; 0 leaves them as they are.
      interpolation: how they are resized; a key of INTERPOLATIONS.
      scale, offset: values are times scale, plus offset: one for all, or one for each channel.
      channels_first: whether the result is [N, channels, height, width].
      name: what the config calls it; no part of what it is.
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
    def decoding(self) -> Image:
        """What `decoded` depends on; images that are scaled differently share it."""
        return dataclasses.replace(self, scale=(1.0,), offset=(0.0,), channels_first=False)

    def decoded(self, column: pa.Array) -> np.ndarray:
        """The images before scaling, uint8 or float32 [N, height, width, channels].

        Raises:
          UnscorableRowsError: rows without an image, with one that cannot be decoded, with one of
            another size than most, or with raw values that are not `shape`.
          JobError: a column of another type.
        """
        values, lengths = arrow.flatten(column)
        if not pa.types.is_null(values.type):
            self._check_type(values.type)
        arrow.refuse(lengths == 0, lambda row: f"{self}: the row has none")
        if arrow.is_number(values.type):
            return self._resized(self._from_numbers(values, lengths))
        arrow.refuse(
            lengths != 1, lambda row: f"{self}: the row has {lengths[row]} values, and must have 1"
        )
        missing = values.is_null().to_numpy(zero_copy_only=False)
        arrow.refuse(missing, lambda row: f"{self}: the row has none")
        blobs = values.cast(pa.large_binary()).to_numpy(zero_copy_only=False)
        return self._resized(self._from_bytes(blobs)) if self.shape else self._from_encoded(blobs)

    def scaled(self, images: np.ndarray) -> np.ndarray:
        """Decoded images times scale, plus offset, in float32 as Keras' Rescaling does it.

        With channels first if that is declared. Images that nothing scales keep their dtype.
        """
        if self.scale != (1.0,) or self.offset != (0.0,):
            images = images.astype(np.float32)
            images *= np.array(self.scale, np.float32)
            if any(self.offset):
                images += np.array(self.offset, np.float32)
        return np.ascontiguousarray(np.moveaxis(images, -1, 1)) if self.channels_first else images

    def fitted(
        self, images: np.ndarray, dtype: np.dtype, shape: tuple[int | None, ...], what: str
    ) -> np.ndarray:
        """Scaled images in the rank and dtype of an input, called `what`, whose sizes they have.

        Raises:
          UnscorableRowsError: rows with values outside the dtype; all of them, where they have
            other sizes and other rows may have the input's.
          JobError: every row has other sizes.
        """
        images = self._of_shape(images, shape, what)
        # All floats have 0 to 255; and bfloat16 and its kin, of kind V, are meant to round.
        if dtype.kind == "V" or (images.dtype == np.uint8 and dtype.kind == "f"):
            return images.astype(dtype)
        if images.dtype != np.uint8 and dtype.kind in "iu":
            # What a scale makes of whole numbers need not be whole to the last bit.
            whole = np.rint(images)
            images = np.where(np.abs(whole - images) < _ALMOST, whole, images)
        size = math.prod(images.shape[1:])
        remedy = f". Give {self} a `scale` and `offset` whose results are whole and in range"
        return arrow.cast(images.reshape(-1), dtype, size, what, remedy).reshape(images.shape)

    def _of_shape(
        self, images: np.ndarray, wanted: tuple[int | None, ...], what: str
    ) -> np.ndarray:
        found = images.shape[1:]
        if len(wanted) == 2 and self.channels_first and found[0] == 1:
            images = images[:, 0]
        elif len(wanted) == 2 and not self.channels_first and found[-1] == 1:
            images = images[..., 0]
        sizes = images.shape[1:]
        if len(wanted) == len(sizes) and all(
            one in (None, size) for one, size in zip(wanted, sizes, strict=True)
        ):
            return images
        why = f"{what} takes the shape {list(wanted)}, and the image has {list(found)}"
        why = f"{why.replace('None', 'any')}. {self._remedy(wanted, found)}"
        if self.shape or (self.size and self.channels):  # Every image has the same.
            raise errors.JobError(why)
        raise arrow.UnscorableRowsError(dict.fromkeys(range(len(images)), why))

    def _remedy(self, wanted: tuple[int | None, ...], found: tuple[int, ...]) -> str:
        """What to declare so that images of the shape `found` become `wanted`."""
        if len(wanted) == 2:
            wanted = (1, *wanted) if self.channels_first else (*wanted, 1)
        if len(wanted) != 3:
            return "Images fill inputs of height, width and channels, or of height and width"
        height, width, channels = np.roll(found, -1) if self.channels_first else found
        counts = {1, 3, 4, channels}
        first, last = wanted[0] in counts, wanted[2] in counts
        channels_first = first if first != last else self.channels_first
        keys = []
        if channels_first != self.channels_first:
            keys.append(f"`channels_first: {str(channels_first).lower()}`")
        *sizes, planes = (*wanted[1:], wanted[0]) if channels_first else wanted
        if any(a not in (None, b) for a, b in zip(sizes, (height, width), strict=True)):
            keys.append(f"`size: [{sizes[0] or height}, {sizes[1] or width}]`")
        if planes not in (None, channels):
            if self.shape or planes not in (1, 3, 4):
                return f"The model needs images of {planes} channels; these have {channels}"
            keys.append(f"`channels: {planes}`")
        return f"Set {' and '.join(keys)} of the image"

    def _check_type(self, found: pa.DataType) -> None:
        binary = arrow.is_binary(found)
        if binary or (self.shape and arrow.is_number(found)):
            return
        if arrow.is_number(found):
            remedy = (
                "They are read as encoded PNG or JPEG bytes. If they are raw arrays, say so: "
                "`shape: [<height>, <width>, <channels>]`"
            )
        elif pa.types.is_string(found) or pa.types.is_large_string(found):
            remedy = (
                "Paths and base64 are not read: put the images' bytes themselves into a Parquet "
                "column of binary type or a tf.Example's bytes_list (CSV and JSON lines have no "
                "bytes, though JSON lines may hold raw arrays)"
            )
        else:
            remedy = (
                "Put the images' bytes into a column of binary type, or raw arrays into one of "
                "lists of numbers"
            )
        raise errors.JobError(f"{self}: the data has values of type {found}. {remedy}")

    def _from_numbers(self, values: pa.Array, lengths: np.ndarray) -> np.ndarray:
        size = math.prod(self.shape)
        arrow.refuse(
            lengths != size,
            lambda row: (
                f"{self}: {_product(self.shape)} = {size} values make one, the row has "
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
            hint = "; it is an encoded image: drop `shape`" if _opener(blobs[row]) else ""
            return (
                f"{self}: {_product(self.shape)} = {size} bytes make one, the row has "
                f"{lengths[row]}{hint}"
            )

        arrow.refuse(lengths != size, reason)
        return np.frombuffer(b"".join(blobs), np.uint8).reshape(-1, *self.shape)

    def _resized(self, images: np.ndarray) -> np.ndarray:
        """Raw images in their size: each channel by itself, as there may be any number."""
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
        found = _map(self._decode, blobs)
        reasons = {
            row: f"{self} {one}" for row, one in enumerate(found) if not isinstance(one, np.ndarray)
        }
        arrays = [one for one in found if isinstance(one, np.ndarray)]
        if not arrays:
            raise arrow.UnscorableRowsError(reasons)
        # Not the first row's shape: a strange row must not condemn the others.
        ((usual, _),) = collections.Counter(one.shape for one in arrays).most_common(1)
        for row, one in enumerate(found):
            if isinstance(one, np.ndarray) and one.shape != usual:
                keys = "`channels`" if one.shape[:2] == usual[:2] else "`size`"
                reasons[row] = (
                    f"{self} is {_product(one.shape)}, and most of its batch are "
                    f"{_product(usual)}: give it {keys} to bring all to one"
                )
        if reasons:
            raise arrow.UnscorableRowsError(reasons)
        images = np.empty((len(arrays), *usual), np.result_type(*{one.dtype for one in arrays}))
        for row, one in enumerate(arrays):
            images[row] = one
        return images

    def _decode(self, blob: bytes) -> np.ndarray | str:
        """uint8 or float32 [height, width, channels]; or what is wrong with it."""
        opener = _opener(blob)
        if opener is None:
            return f"is neither PNG nor JPEG: it begins with {blob[:8]!r}"
        try:
            image = opener(io.BytesIO(blob))
            if image.width * image.height > MAX_PIXELS:
                return (
                    f"has {image.height} x {image.width} pixels, more than the {MAX_PIXELS:,} "
                    "that are decoded"
                )
            image.load()
        except Exception as error:  # Pillow raises anything: SyntaxError, struct.error, ...
            return f"cannot be decoded: {error or type(error).__name__}"
        if image.mode.startswith("I"):
            return self._from_16_bits(image)
        array = np.asarray(self._resize(self._converted(image)))
        return array[:, :, np.newaxis] if array.ndim == 2 else array

    def _converted(self, image: PIL.Image.Image) -> PIL.Image.Image:
        mode = image.mode
        if mode == "P":
            # Not at once to fewer channels: Pillow warns of transparency that is lost.
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        elif mode == "1":
            image = image.convert("L")
        elif mode not in _MODES.values():
            image = image.convert("RGB")
        wanted = _MODES.get(self.channels, image.mode)
        return image if image.mode == wanted else image.convert(wanted)

    def _from_16_bits(self, image: PIL.Image.Image) -> np.ndarray:
        grey = self._resize(PIL.Image.fromarray(np.asarray(image).astype(np.float32)))
        # Some filters leave the range, which in 8 bits is cut too.
        array = np.clip(np.asarray(grey)[:, :, np.newaxis] / np.float32(257), 0, 255)
        if self.channels < 3:
            return array
        array = np.repeat(array, self.channels, axis=2)
        array[:, :, 3:] = 255
        return array


def _opener(blob: bytes) -> Callable[[io.BytesIO], PIL.ImageFile.ImageFile] | None:
    return next((opener for magic, opener in _OPENERS.items() if blob.startswith(magic)), None)


def _map(decode: Callable[[bytes], np.ndarray | str], blobs: np.ndarray) -> list[np.ndarray | str]:
    """In order; in threads where they help, as Pillow decodes beside Python."""

    def run(part: np.ndarray) -> list[np.ndarray | str]:
        return [decode(blob) for blob in part]

    workers = min(_MOST_THREADS, threads.share())
    if workers == 1 or sum(map(len, blobs)) < _THREADED_BYTES * max(2, len(blobs)):
        return run(blobs)
    # A pool for each batch costs little; one for all would not outlive a fork. In parts: handing
    # over single images takes as long as decoding small ones.
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        parts = pool.map(run, np.array_split(blobs, 4 * workers))
        return [one for part in parts for one in part]


def _product(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
