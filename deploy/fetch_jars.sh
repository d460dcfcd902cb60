#!/usr/bin/env bash
# Builds Beam's job server for Flink or Spark from Maven's artifacts: FOLDER/flink-job-server.jar and
# the jars that it names, in FOLDER/lib. Every jar has the digest in deploy/*/jars.sha256, or it fails.
set -euo pipefail

usage="usage: $0 flink|spark FOLDER"
here=$(cd "$(dirname "$0")" && pwd)
kind=${1:?$usage}
folder=${2:?$usage}
[[ -f "$here/$kind/pom.xml" ]] || { echo "$usage" >&2; exit 2; }

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cp "$here/$kind/pom.xml" "$build"
echo "fetching the job server for $kind, which takes a minute ..." >&2
mvn --batch-mode --quiet --file "$build/pom.xml" package -Ddestination="$folder"
if ! diff "$here/$kind/jars.sha256" <(cd "$folder/lib" && sha256sum -- *.jar) >&2; then
  echo "the jars in $folder/lib are not those of $here/$kind/jars.sha256" >&2
  exit 1
fi
