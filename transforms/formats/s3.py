"""Fixes bugs and slowness in Beam's S3 filesystem; importing this module applies the fixes."""

from __future__ import annotations

import functools

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions

_connect = functools.lru_cache(maxsize=8)(boto3_client.Client)


class _Client(boto3_client.Client):
    """Shares connections: Beam takes 0.1 s to reconnect for each file that it opens or stats."""

    def __init__(self, options: PipelineOptions) -> None:
        # boto3's client is thread-safe; the state of a download stays in this object.
        vars(self).update(vars(_connect(options)))


class _Uploader(s3io.S3Uploader):
    """Writes empty files too: S3 requires at least one part, and Beam sends none.

    A failed upload stays failed: Python closes the file once more when it is garbage-collected,
    which would create the object after all.
    """

    def finish(self) -> None:
        if self.last_error is not None:
            raise self.last_error
        try:
            if not self.parts and not self.buffer:
                self._write_to_s3(b"")
            super().finish()
        except BaseException as error:
            self.last_error = error
            raise


boto3_client.Client = _Client  # type: ignore[misc]
s3io.S3Uploader = _Uploader  # type: ignore[misc]
