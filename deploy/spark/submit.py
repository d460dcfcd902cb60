"""What spark-submit runs as the driver: Beam's job server inside Spark, and `evalbeam run` on it.

    spark-submit --conf spark.driver.extraClassPath=JOB_SERVER_JAR \\
        --conf spark.executor.extraClassPath=JOB_SERVER_JAR submit.py CONFIG [FLAG ...]

Beam's job server cannot submit to Kubernetes by itself, and a pipeline that is exported as a jar
would end without anyone to verify its counts and publish. So the job server is started in the
driver that spark-submit has made, whatever its master, and the command runs to its own end beside
it: its exit code is the application's. Executors find a Beam worker pool on their own port 50000.
"""

import subprocess
import sys

from pyspark import java_gateway

_, config, *flags = sys.argv

gateway = java_gateway.launch_gateway()
arguments = ["--job-port=0", "--artifact-port=0", "--expansion-port=0"]
parameters = gateway.new_array(gateway.jvm.java.lang.String, len(arguments))
for place, argument in enumerate(arguments):
    parameters[place] = argument
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
