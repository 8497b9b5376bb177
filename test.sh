#!/bin/sh
# Installs what is missing, builds a release and runs every test. Skipped tests are printed with
# their reasons; one that tests/allowed_skips.txt does not allow here is a failure. The last line is
# ctest's count. Arguments go to ctest:  ./test.sh -R Config
set -eu
cd "$(dirname "$0")"

./scripts/deps.sh build test
./scripts/build.sh release

build=build/release
log=$build/ctest.log
rm -f "$build/ctest.xml"
status=0
# A pipe would hide ctest's exit status from sh.
{ ctest --test-dir "$build" --output-on-failure -j2 --output-junit ctest.xml "$@" 2>&1 ||
  echo $? >"$build/ctest.status"; } | tee "$log"
if [ -f "$build/ctest.status" ]; then
  status=$(cat "$build/ctest.status")
  rm -f "$build/ctest.status"
fi

python3 scripts/check_skips.py "$build/ctest.xml" tests/allowed_skips.txt || status=1
grep -E '^[0-9]+% tests passed' "$log" || status=1
exit "$status"
