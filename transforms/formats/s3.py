"""Beam's S3 filesystem, mended where it is wrong or slow; to import this module is enough."""

from __future__ import annotations

import functools

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions

_connected = functools.lru_cache(maxsize=8)(boto3_client.Client)


class _Client(boto3_client.Client):
    """Beam connects anew for each file and each look at one, in a tenth of a second."""

    def __init__(self, options: PipelineOptions) -> None:
        # boto3's client is for all threads; what is read through it is this object's own.
        vars(self).update(vars(_connected(options)))


class _Uploader(s3io.S3Uploader):
    """Writes empty files, of which Beam sends no part, and S3 wants one.

    What fails to be finished stays so: Python closes such a file once more when it collects it,
    and what was given up, and removed, would be there after all.
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
