"""`evalbeam-worker`: Beam workers on a machine without Docker.

It follows the contract of the boot program in Beam's images, which is written in Go and creates a
virtual environment for each worker (https://s.apache.org/beam-fn-api-container-contract): the
runner passes an ID and the address of its provision service, which provides everything else. This
process fetches the files that the job has staged, installs the packages among them alongside those
of the environment, and becomes the worker. The runner starts it

  as a process: --environment_type=PROCESS --environment_config='{"command": ".../evalbeam-worker"}'
  in a pool: --environment_type=EXTERNAL --environment_config=localhost:50000, with a separate pool
      for each TaskManager, `evalbeam-worker --worker_pool`, as their worker IDs are the same

Unlike Beam's own pool, this one listens at one address only (as it starts processes for anyone who
connects), does not swallow its workers' output, and stops its workers when it ends.
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
    """Serves a pool, or becomes a worker; the runner treats any failure as the worker's end."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--worker_pool", action="store_true", help="serve a pool of workers")
    parser.add_argument("--address", default="localhost:50000", help="the pool's address")
    parser.add_argument("--id", help="the worker's ID")
    parser.add_argument(
        "--provision_endpoint", help="the address of the runner's provision service"
    )
    # Pools also pass the endpoints that the provision service provides.
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
    # Without this, a second pool at the same address would take every other request.
    server = grpc.server(futures.ThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)])
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        sys.exit(
            f"error: cannot listen at {address}: it is not an address of this machine, or is in use"
        )
    server.start()
    print(f"worker pool at {address}", file=sys.stderr, flush=True)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: server.stop(0))
    server.wait_for_termination()
    for worker in list(pool._worker_processes):
        pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id=worker), None)


def _become_worker(worker: str, provision_endpoint: str) -> None:
    # A pool connects its workers' stdout to a pipe that nobody reads.
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
    """Downloads the files that the job has staged to `folder`."""
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
    """Installs the packages among the files into `folder`; returns None if there are none."""
    packages = [str(file) for file in files if file.name.endswith(_PACKAGES)]
    if not packages:
        return None
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *packages], check=True)
    return str(folder)
