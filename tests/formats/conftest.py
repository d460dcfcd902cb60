from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from apache_beam.io import filesystem


class MemoryFileSystem(filesystem.FileSystem):
    """Beam's filesystem for memory://, standing in for object stores."""

    @classmethod
    def scheme(cls):
        return "memory"

    def join(self, basepath, *paths):
        return "/".join([basepath, *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        return [self.metadata(path) for path in FILES if path.startswith(dir_or_prefix)]

    def open(self, path, mime_type=None, compression_type=None):
        if path not in FILES:
            raise FileNotFoundError(path)
        return io.BytesIO(FILES[path])

    def exists(self, path):
        return path in FILES

    def metadata(self, path):
        return filesystem.FileMetadata(path, len(FILES[path]))

    def _unsupported(self, *args):
        raise NotImplementedError

    mkdirs = create = copy = rename = size = last_updated = checksum = delete = _unsupported


FILES: dict[str, bytes] = {}


@pytest.fixture
def memory() -> Iterator[dict[str, bytes]]:
    """The files of memory://, by URL."""
    yield FILES
    FILES.clear()
