"""Checks that remote stores are usable, before reading from them or writing to them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator

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


def check(inputs: Iterable[str], output: str | None, options: PipelineOptions) -> None:
    """Lists each folder of inputs and output once, with the endpoints and credentials in `options`.

    Beam would treat a missing bucket as empty, and retry for minutes if a store does not answer or
    rejects the credentials.

    Raises:
      ConfigError: a URL holds a password, a scheme is unknown or needs another package, or a store
        cannot be listed; says what to do.
    """
    inputs = tuple(inputs)
    for path in (*inputs, output):
        if path and (half := re.fullmatch(r"([a-z][a-z0-9]+):/(?!/)(.*)", path)):
            scheme, rest = half.groups()
            raise errors.ConfigError(
                f"{path}: a URL has two slashes after the colon. Did you mean '{scheme}://{rest}'?"
            )
        if path and re.match(r"\w+://[^/]*@", path):
            raise errors.ConfigError(
                f"{path}: a URL may not hold a password, as results name it: set it in the "
                "environment, or by a flag such as --s3_secret_access_key"
            )
    filesystems.FileSystems.set_options(options)
    # Beam's s3io logs tracebacks of the errors that it raises.
    logging.getLogger().addFilter(_is_not_from_s3io)
    # Nor those that it retries, such as each search for Google Cloud's credentials.
    logging.getLogger("apache_beam.utils.retry").setLevel(logging.ERROR)
    # Once per folder: a thousand files in a list need not be checked one by one.
    remote = (path for path in (*inputs, output) if path and files.is_remote(path))
    for path in {_folder(path): path for path in remote}.values():
        _check(path, options)
    if (
        output
        and files.is_remote(output)
        and filesystems.FileSystems.get_filesystem(output).has_dirs()
    ):
        raise errors.ConfigError(
            f"output {output}: results can only be written to a local or mounted folder, or to an "
            "object store such as s3:// or gs://, where half-written files are never visible"
        )


def _is_not_from_s3io(record: logging.LogRecord) -> bool:
    return record.module != "s3io"


def inputs(settings: config.Config) -> Iterator[str]:
    """The data and models of a config."""
    for patterns in (settings.data.files, *settings.data.splits.values()):
        yield from patterns
    yield from (model.path for model in settings.models if model.path)


def _check(url: str, options: PipelineOptions) -> None:
    scheme = filesystems.FileSystems.get_scheme(url)
    schemes = {kind.scheme() for kind in filesystem.FileSystem.get_all_subclasses()} - {None}
    if scheme not in schemes:
        raise errors.ConfigError(
            f"{url}: Beam has no filesystem for {scheme}:// here; it supports "
            f"{', '.join(f'{name}://' for name in sorted(schemes))}"
        )
    if scheme == "s3":
        _check_s3(url, options)
        return
    try:
        filesystems.FileSystems.match([f"{_prefix(url)}*"], limits=[1])
    except Exception as e:  # each filesystem raises its own errors
        raise errors.ConfigError(
            f"{url}: {files.reason(e)}; check the URL, and that this machine may list it"
        ) from e


def _folder(url: str) -> str:
    """The folder of the URL's files; the URL itself at the root of a bucket."""
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
            remedy = "check its name, and --s3_endpoint_url if it is not on AWS"
        else:
            remedy = f"check the credentials, and that they may list {_prefix(url)}"
        raise errors.ConfigError(f"{url}: {e}; {remedy}") from e
    except (s3_errors.NoCredentialsError, s3_errors.PartialCredentialsError) as e:
        raise errors.ConfigError(
            f"{url}: {e}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or pass "
            "--s3_access_key_id and --s3_secret_access_key"
        ) from e
    except (s3_errors.BotoCoreError, ValueError) as e:
        raise errors.ConfigError(
            f"{url}: {e}; check the URL, --s3_endpoint_url and --s3_region_name"
        ) from e
