"""Serialised tf.Examples as TensorFlow takes them: a batch's are made a tensor once."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from evalbeam.transforms import batch, errors

_BUCKETS = 2**63 - 1  # the most that TensorFlow has


def tensor(examples: batch.Batch) -> tf.Tensor:
    """The raw examples, string[N].

    Raises:
      JobError: a batch that was read without them.
    """
    if examples.serialized is None:
        raise errors.JobError(
            f"the model takes serialised tf.Examples, and {examples.shard} was read without them"
        )
    make = functools.partial(tf.convert_to_tensor, examples.serialized, tf.string)
    return examples.memo.once("serialized", make)


def hashes(examples: batch.Batch) -> np.ndarray:
    """FarmHash of each raw example, uint64[N], below 2^63 - 1; the same in every release."""
    found: np.ndarray = tf.strings.to_hash_bucket_fast(tensor(examples), _BUCKETS).numpy()
    return found.astype(np.uint64)
