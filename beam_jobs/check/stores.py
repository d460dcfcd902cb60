"""Whether remote stores can be used, before anything is read from them or written to them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from apache_beam.io import filesystem, filesystems
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions

from evalbeam.beam_jobs import config
from evalbeam.transforms import errors
from evalbeam.transforms.formats import files

try:
    from botocore import exceptions as s3_errors
except ImportError:  # the extra evalbeam[s3]
    s3_errors = None


def check(settings: config.Config, output: str, options: PipelineOptions) -> None:
    """Asks once for each folder of data, models and output, with the options' endpoints and keys.

    Beam would take a missing bucket for an empty one, and ask a store that does not answer, or
    refuses the keys, again for minutes.

    Raises:
      ConfigError: a scheme that is unknown or needs another package, or a store that cannot be
        listed; says what to do.
    """
    filesystems.FileSystems.set_options(options)
    # It prints tracebacks of what it raises.
    logging.getLogger().addFilter(_is_not_of_s3io)
    # By what a glob begins with: a thousand listed files need not be asked for one by one.
    remote = (path for path in (*_inputs(settings), output) if files.is_remote(path))
    for path in {_folder(path): path for path in remote}.values():
        _check(path, options)
    if files.is_remote(output) and filesystems.FileSystems.get_filesystem(output).has_dirs():
        raise errors.ConfigError(
            f"output {output}: results go to a local folder, or one that is mounted, or to an "
            "object store such as s3:// or gs://, where half a file is never seen"
        )


def _is_not_of_s3io(record: logging.LogRecord) -> bool:
    return record.module != "s3io"


def _inputs(settings: config.Config) -> Iterator[str]:
    for listed in (settings.data.files, *settings.data.splits.values()):
        yield from [listed] if isinstance(listed, str) else listed
    yield from (model.path for model in settings.models if model.path)


def _check(url: str, options: PipelineOptions) -> None:
    scheme = filesystems.FileSystems.get_scheme(url)
    known = {kind.scheme() for kind in filesystem.FileSystem.get_all_subclasses()} - {None}
    if scheme not in known:
        raise errors.ConfigError(
            f"{url}: {scheme}:// is no filesystem that Beam knows here; it knows "
            f"{', '.join(f'{one}://' for one in sorted(known))}"
        )
    if scheme == "s3":
        _check_s3(url, options)
        return
    try:
        filesystems.FileSystems.match([f"{_prefix(url)}*"], limits=[1])
    except Exception as e:  # every filesystem has errors of its own
        raise errors.ConfigError(
            f"{url}: {files.reason(e)}; check the URL, and that this machine may list it"
        ) from e


def _folder(url: str) -> str:
    """The folder of what the URL stands for; of what is at a bucket's root, the URL."""
    folder, _, _ = _prefix(url).rpartition("/")
    return folder if folder.count("/") > 2 else url


def _prefix(url: str) -> str:
    """The URL up to the first wildcard."""
    return re.split(r"[*?[]", url)[0]


def _check_s3(url: str, options: PipelineOptions) -> None:
    if s3_errors is None:
        raise errors.ConfigError(
            f"{url}: s3:// needs boto3, which is not installed: pip install boto3"
        )
    bucket, _, prefix = _prefix(url).removeprefix("s3://").partition("/")
    try:
        client = boto3_client.Client(options).client
        client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except s3_errors.ClientError as e:
        code = e.response["Error"]["Code"]
        if code == "NoSuchBucket":
            todo = "check its name, and --s3_endpoint_url where it is not at AWS"
        else:
            todo = f"check the keys, and that they may list {_prefix(url)}"
        raise errors.ConfigError(f"{url}: {e}; {todo}") from e
    except (s3_errors.NoCredentialsError, s3_errors.PartialCredentialsError) as e:
        raise errors.ConfigError(
            f"{url}: {e}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give "
            "--s3_access_key_id and --s3_secret_access_key"
        ) from e
    except (s3_errors.BotoCoreError, ValueError) as e:
        raise errors.ConfigError(
            f"{url}: {e}; check the URL, --s3_endpoint_url and --s3_region_name"
        ) from e
