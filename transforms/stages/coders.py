"""How batches would be encoded, if a runner ever shuffled them: by pickle, with a cheap size.

Beam samples the encoded size of what passes between steps. For batches, which stay in their worker,
that would be pickling megabytes for a number that nobody reads. The stages that give batches import
this module, and name the type.
"""

from __future__ import annotations

import pickle
from typing import Any

import apache_beam as beam
from apache_beam.coders import typecoders

from evalbeam.transforms import batch

_BYTES_PER_ROW = 100  # a guess, for the runner's monitoring only


class BatchCoder(beam.coders.Coder):
    """Pickles batches and scored batches; estimates their size from their rows."""

    def encode(self, value: Any) -> bytes:
        """The pickled batch."""
        return pickle.dumps(value, protocol=5)

    def decode(self, encoded: bytes) -> Any:
        """The batch again."""
        return pickle.loads(encoded)

    def estimate_size(self, value: Any) -> int:
        """About how many bytes it is, without encoding it."""
        return _BYTES_PER_ROW * len(value)

    def is_deterministic(self) -> bool:
        """Pickle promises nothing."""
        return False


typecoders.registry.register_coder(batch.Batch, BatchCoder)
typecoders.registry.register_coder(batch.Scored, BatchCoder)
