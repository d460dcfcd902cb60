#!/usr/bin/env bash
# Fetches what the tests of this folder run: Flink and Spark (from the Python package index), Beam's
# job servers for them (from Maven) and Prism (a Go program). What lacks its tool is left out, and
# said; the tests that need it skip.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${1:?usage: $0 PYTHON}
folder=.cache/cluster
mkdir -p "$folder"

for name in flink spark; do
  stamp=$folder/$name.requirements
  if ! cmp --silent "tests/cluster/$name.txt" "$stamp"; then
    echo "fetching $name ..." >&2
    rm -rf "${folder:?}/$name"
    # For whichever Python this is: its wheels are for 3.11, and only Java programs are used.
    "$python" -m pip --quiet --disable-pip-version-check --no-input install --no-deps \
      --require-hashes --no-build-isolation --python-version 3.11 \
      --target "$folder/$name" --requirement "tests/cluster/$name.txt"
    cp "tests/cluster/$name.txt" "$stamp"
  fi
  if ! command -v mvn >/dev/null; then
    echo "no mvn (Maven): without a job server, nothing is tested on $name" >&2
  elif ! cmp --silent "deploy/$name/jars.sha256" "$folder/$name-jars.sha256"; then
    rm -rf "${folder:?}/$name-jars"
    deploy/fetch_jars.sh "$name" "$folder/$name-jars"
    cp "deploy/$name/jars.sha256" "$folder/$name-jars.sha256"
  fi
done

beam=v$("$python" -c 'from importlib import metadata; print(metadata.version("apache-beam"))')
if ! command -v go >/dev/null; then
  echo "no go: nothing is tested on Prism" >&2
elif [[ ! -x "$folder/prism-$beam/prism" ]]; then
  echo "building Prism ..." >&2
  GOBIN=$PWD/$folder/prism-$beam go install github.com/apache/beam/sdks/v2/go/cmd/prism@"$beam"
fi
