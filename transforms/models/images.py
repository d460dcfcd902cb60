"""Columns of images: decoded, resized and scaled as the config declares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Image:
    """What a model's input is made of.

    Attributes:
      column: of encoded PNG or JPEG images, or of raw arrays.
      shape: of raw arrays, (height, width, channels); () for encoded images.
      size: (height, width) that images are brought to; () leaves them as they are.
      channels: 1, 3 or 4 that encoded images are brought to; 0 leaves them as they are.
      interpolation: how they are resized; one of Pillow's filters, in lower case.
      scale, offset: values are times scale, plus offset: one for all, or one for each channel.
      channels_first: whether the result is [N, channels, height, width].
    """

    column: str
    shape: tuple[int, ...] = ()
    size: tuple[int, ...] = ()
    channels: int = 0
    interpolation: str = "bilinear"
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    channels_first: bool = False

    def pixels(self, column: pa.Array) -> np.ndarray:
        """The column's images, float32[N, height, width, channels].

        Raises:
          UnscorableRowsError: rows without an image, with one that cannot be decoded, or with one
            of another size than the others'.
        """
        raise NotImplementedError
