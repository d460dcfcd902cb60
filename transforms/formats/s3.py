"""Fixes bugs and slowness in Beam's S3 filesystem; importing this module applies the fixes."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from apache_beam.io import filesystem
from apache_beam.io.aws import s3filesystem, s3io
from apache_beam.io.aws.clients.s3 import boto3_client, messages
from apache_beam.options.pipeline_options import PipelineOptions

_connect = functools.lru_cache(maxsize=8)(boto3_client.Client)


class _Client(boto3_client.Client):
    """Shares connections: Beam takes 0.1 s to reconnect for each file that it opens or stats."""

    def __init__(self, options: PipelineOptions) -> None:
        # boto3's client is thread-safe; the state of a download stays in this object.
        vars(self).update(vars(_connect(options)))
        self.etags: dict[str, str] = {}

    def list(self, request: messages.ListRequest) -> messages.ListResponse:
        """Keeps the ETags of what is listed, which `S3IO.list_files` drops."""
        response = super().list(request)
        self.etags.update(
            (f"s3://{request.bucket}/{item.key}", item.etag) for item in response.items
        )
        return response


class _Metadata(filesystem.FileMetadata):
    """With the object's ETag: of the time, S3 tells whole seconds only."""

    def __init__(self, path: str, size_bytes: int, updated: float, etag: str) -> None:
        super().__init__(path, size_bytes, updated)
        self.etag = etag


def _list(self: s3filesystem.S3FileSystem, dir_or_prefix: str) -> Iterator[filesystem.FileMetadata]:
    store = s3io.S3IO(options=self._options)
    try:
        for path, (size, updated) in store.list_files(dir_or_prefix, with_metadata=True):
            yield _Metadata(path, size, updated, store.client.etags[path])
    except Exception as error:
        raise filesystem.BeamIOError("List operation failed", {dir_or_prefix: error}) from error


def _find_metadata(self: s3filesystem.S3FileSystem, path: str) -> filesystem.FileMetadata:
    try:
        status = s3io.S3IO(options=self._options)._status(path)
    except Exception as error:
        raise filesystem.BeamIOError("Metadata operation failed", {path: error}) from error
    return _Metadata(path, status["size"], status["last_updated"], status["checksum"])


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
s3filesystem.S3FileSystem._list = _list  # type: ignore[method-assign]
s3filesystem.S3FileSystem.metadata = _find_metadata  # type: ignore[method-assign]
s3io.S3Uploader = _Uploader  # type: ignore[misc]
