"""The Spark application: starts Beam's job server inside the driver and runs `evalbeam run` on it.

    spark-submit --conf spark.driver.extraClassPath=JOB_SERVER_JAR \\
        --conf spark.executor.extraClassPath=JOB_SERVER_JAR submit.py CONFIG [FLAG ...]

Beam's job server cannot submit to Kubernetes itself, and if the pipeline were exported as a jar,
nothing would verify its counts and publish. So this starts the job server in the driver that
spark-submit has created, with any master, and runs the command alongside it; the application ends
with the command's exit code. Executors find a Beam worker pool on their own port 50000.
"""

import subprocess
import sys

from pyspark import java_gateway

_, config, *flags = sys.argv

gateway = java_gateway.launch_gateway()
arguments = ["--job-port=0", "--artifact-port=0", "--expansion-port=0"]
parameters = gateway.new_array(gateway.jvm.java.lang.String, len(arguments))
for index, argument in enumerate(arguments):
    parameters[index] = argument
server = gateway.jvm.org.apache.beam.runners.spark.SparkJobServerDriver.fromParams(parameters)
command = [
    "evalbeam",
    "run",
    config,
    "--runner=PortableRunner",
    f"--job_endpoint={server.start()}",
    "--environment_type=EXTERNAL",
    "--environment_config=localhost:50000",
    *flags,
]
sys.exit(subprocess.run(command).returncode)
