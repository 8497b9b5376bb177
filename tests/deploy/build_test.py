#!/usr/bin/env python3
"""What run.sh configures needs no package of the tests: scripts/deps.sh build is enough.

scripts/build.sh runs with a cmake that knows no GoogleTest, RapidCheck or Google Benchmark and
configures into a folder of its own.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

FAKE_CMAKE = """#!/bin/sh
[ "$1" = --preset ] || exit 0
shift 2
exec {cmake} -S {root} -B {folder}/build -G Ninja -DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON \
  -DCMAKE_DISABLE_FIND_PACKAGE_rapidcheck=ON -DCMAKE_DISABLE_FIND_PACKAGE_benchmark=ON "$@"
"""


def configure(folder, *targets):
    """The result of scripts/build.sh release TARGETS, whose build does nothing."""
    shutil.rmtree(folder / "build", ignore_errors=True)
    environment = dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}")
    return subprocess.run(["sh", ROOT / "scripts/build.sh", "release", *targets], env=environment,
                          capture_output=True, text=True)


def main():
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which("ninja") is None:
        print("skipped: no cmake or ninja")
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        fake = folder / "cmake"
        fake.write_text(FAKE_CMAKE.format(cmake=cmake, root=ROOT, folder=folder))
        fake.chmod(0o755)
        server = configure(folder, "tern")
        if server.returncode != 0:
            print(server.stderr)
            return "the server cannot be configured without the packages of the tests"
        # Otherwise the fake hides nothing and the line above shows nothing.
        if configure(folder).returncode == 0:
            return "the tests were configured although their packages were hidden"
    return 0


if __name__ == "__main__":
    sys.exit(main())
