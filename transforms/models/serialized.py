"""Serialised tf.Examples as a TensorFlow tensor, converted once per batch."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from evalbeam.transforms import batch, errors

_BUCKETS = 2**63 - 1  # TensorFlow's maximum


def tensor(examples: batch.Batch) -> tf.Tensor:
    """The raw examples, string[N].

    Raises:
      DataError: the batch was read without them.
    """
    if examples.serialized is None:
        raise errors.DataError(
            f"the model takes serialised tf.Examples, but {examples.shard} was read without them"
        )
    convert = functools.partial(tf.convert_to_tensor, examples.serialized, tf.string)
    return examples.memo.once("serialized", convert)


def hashes(examples: batch.Batch) -> np.ndarray:
    """FarmHash of each raw example, uint64[N], below 2^63 - 1; the same in every release."""
    buckets: np.ndarray = tf.strings.to_hash_bucket_fast(tensor(examples), _BUCKETS).numpy()
    return buckets.astype(np.uint64)
