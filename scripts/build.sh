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
# Some sources need about 1 GiB to compile, so memory bounds the jobs as well as cores do.
jobs=$(nproc)
memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
[ "$memory_gib" -ge "$jobs" ] || jobs=$((memory_gib > 0 ? memory_gib : 1))

tests=ON
[ $# -eq 0 ] || tests=OFF

cmake --preset "$preset" -DTERN_BUILD_TESTS=$tests >&2
cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"} >&2
