#!/bin/sh
# Configures and builds a CMake preset (default: release), with ccache when it is installed.
#
#   scripts/build.sh [preset]            everything, tests too (scripts/deps.sh build test)
#   scripts/build.sh preset target...    these, without the tests (scripts/deps.sh build)
set -eu
cd "$(dirname "$0")/.."

preset=${1:-release}
[ $# -eq 0 ] || shift

if command -v ccache >/dev/null; then
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi
# A batch of sources needs up to 1.6 GiB to compile, so memory bounds the jobs as well as cores do.
jobs=$(nproc)
fitting=$(awk '/MemAvailable/ {print int($2 / 1048576 / 1.6)}' /proc/meminfo)
[ "$fitting" -ge "$jobs" ] || jobs=$((fitting > 0 ? fitting : 1))

tests=ON
[ $# -eq 0 ] || tests=OFF

cmake --preset "$preset" -DTERN_BUILD_TESTS=$tests >&2
cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"} >&2
