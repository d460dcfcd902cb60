"""`evalbeam-worker`: Beam workers on a machine without Docker.

It keeps the contract of the boot program in Beam's images, which is written in Go and makes a
virtual environment for each worker (https://s.apache.org/beam-fn-api-container-contract): the
runner gives an id and the address of its provision service, which tells the rest. The files that
the job has staged are fetched, the packages among them installed beside the environment's own, and
this process becomes the worker. The runner starts it

  as a process: --environment_type=PROCESS --environment_config='{"command": ".../evalbeam-worker"}'
  through a pool: --environment_type=EXTERNAL --environment_config=localhost:50000, where each
      TaskManager has a pool of its own, `evalbeam-worker --worker_pool`: their ids are alike

Unlike Beam's own pool, this one listens at one address only (it starts processes for whoever asks),
lets its workers print, and takes them along when it ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from concurrent import futures
from pathlib import Path

import grpc
from apache_beam.portability.api import (
    beam_artifact_api_pb2,
    beam_artifact_api_pb2_grpc,
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
)
from apache_beam.runners.worker import worker_pool_main
from google.protobuf import json_format, text_format

_PACKAGES = (".whl", ".tar.gz", ".zip")


def main() -> None:
    """Serves a pool, or becomes a worker; the runner takes any failure for the worker's end."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--worker_pool", action="store_true", help="serve a pool of workers")
    parser.add_argument("--address", default="localhost:50000", help="where the pool listens")
    parser.add_argument("--id", help="the worker's id")
    parser.add_argument("--provision_endpoint", help="the runner's service that tells the rest")
    # Pools also pass the endpoints that the provision service tells.
    arguments, _ = parser.parse_known_args()
    if arguments.worker_pool:
        _serve(arguments.address)
    elif arguments.id and arguments.provision_endpoint:
        _become_worker(arguments.id, arguments.provision_endpoint)
    else:
        parser.error("give --worker_pool, or --id and --provision_endpoint")


def _serve(address: str) -> None:
    pool = worker_pool_main.BeamFnExternalWorkerPoolServicer(
        use_process=True, container_executable=os.path.abspath(sys.argv[0])
    )
    # A second pool at the same address would take every other request.
    server = grpc.server(futures.ThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)])
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        sys.exit(
            f"error: cannot listen at {address}: it is no address of this machine, or is taken"
        )
    server.start()
    print(f"worker pool at {address}", file=sys.stderr, flush=True)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: server.stop(0))
    server.wait_for_termination()
    for worker in list(pool._worker_processes):
        pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id=worker), None)


def _become_worker(worker: str, provision_endpoint: str) -> None:
    # A pool keeps its workers' standard output as a pipe that nobody reads.
    os.dup2(2, 1)
    info = _provision(worker, provision_endpoint)
    environment = {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.control_endpoint),
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.logging_endpoint),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    if info.dependencies:
        folder = Path(tempfile.mkdtemp(prefix="evalbeam-worker-"))
        packages = _install(_fetch(worker, info, folder / "staged"), folder / "packages")
        path = [packages, os.environ.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        environment["SEMI_PERSISTENT_DIRECTORY"] = str(folder)
    if info.HasField("status_endpoint"):
        environment["STATUS_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(
            info.status_endpoint
        )
    command = [sys.executable, "-m", "apache_beam.runners.worker.sdk_worker_main"]
    os.execve(sys.executable, command, {**os.environ, **environment})


def _provision(worker: str, endpoint: str) -> beam_provision_api_pb2.ProvisionInfo:
    with grpc.insecure_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        return service.GetProvisionInfo(request, metadata=[("worker_id", worker)]).info


def _fetch(worker: str, info: beam_provision_api_pb2.ProvisionInfo, folder: Path) -> list[Path]:
    """Copies what the job has staged into `folder`."""
    folder.mkdir()
    files = []
    with grpc.insecure_channel(info.artifact_endpoint.url) as channel:
        service = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
        for artifact in info.dependencies:
            role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(
                artifact.role_payload
            )
            files.append(folder / Path(role.staged_name).name)
            request = beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact)
            with files[-1].open("wb") as file:
                for block in service.GetArtifact(request, metadata=[("worker_id", worker)]):
                    file.write(block.data)
    return files


def _install(files: list[Path], folder: Path) -> str | None:
    """Installs the packages among the files into `folder`; None where there are none."""
    packages = [str(file) for file in files if file.name.endswith(_PACKAGES)]
    if not packages:
        return None
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *packages], check=True)
    return str(folder)
