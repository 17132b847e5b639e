#!/bin/sh
# The package and all it needs, at the locked versions, in a virtual environment: what both recipes run.
# install.sh SOURCE PREFIX, where SOURCE holds the repository. TORCH chooses torch's build, as in the Makefile.
set -eu
source=$1 prefix=$2
python3 -m venv "$prefix"
pip="$prefix/bin/python -m pip --disable-pip-version-check --no-cache-dir"
# shellcheck disable=SC2086 # words on purpose: a version, and options of pip
$pip install --quiet ${TORCH:-torch==2.13.0}
$pip install --quiet --require-hashes --no-deps -r "$source/requirements.lock"
# A wheel, and not an editable install: nothing of SOURCE is needed afterwards.
$pip install --quiet --no-deps --no-build-isolation "$source"
"$prefix/bin/doseledger" --help > /dev/null
