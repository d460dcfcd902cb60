#!/usr/bin/env bash
# Builds Beam's job server for Flink or Spark from Maven's artifacts: FOLDER/flink-job-server.jar, and
# its dependencies in FOLDER/lib. Fails if a jar's digest is not that in deploy/*/jars.sha256.
set -euo pipefail

usage="usage: $0 flink|spark FOLDER"
here=$(cd "$(dirname "$0")" && pwd)
kind=${1:?$usage}
folder=${2:?$usage}
[[ -f "$here/$kind/pom.xml" ]] || { echo "$usage" >&2; exit 2; }

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cp "$here/$kind/pom.xml" "$build"
echo "fetching the job server for $kind (takes a minute) ..." >&2
mvn --batch-mode --quiet -Dstyle.color=never --file "$build/pom.xml" package -Ddestination="$build/jars"
# After a change of a pom.xml: (cd FOLDER/lib && sha256sum -- *.jar) >deploy/$kind/jars.sha256
if ! diff "$here/$kind/jars.sha256" <(cd "$build/jars/lib" && sha256sum -- *.jar) >&2; then
  echo "the jars do not match $here/$kind/jars.sha256; nothing was written to $folder" >&2
  exit 1
fi
mkdir -p "$folder"
rm -rf "${folder:?}/lib"
mv "$build/jars/lib" "$build/jars"/*.jar "$folder"
echo "$folder/$kind-job-server.jar is ready" >&2
