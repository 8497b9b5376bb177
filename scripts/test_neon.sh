#!/bin/sh
# Compiles the kernels for aarch64 and compares NEON with scalar, bit for bit, under an emulator.
#
#   apt-get install g++-aarch64-linux-gnu qemu-user-static
#   scripts/test_neon.sh
#
# Exit codes: 0 equal, 1 a difference or no build, 77 no compiler or emulator.
set -eu
cd "$(dirname "$0")/.."

compiler=${CXX_AARCH64:-aarch64-linux-gnu-g++}
emulator=${EMULATOR_AARCH64:-qemu-aarch64-static}
for program in "$compiler" "$emulator"; do
  if ! command -v "$program" >/dev/null; then
    echo "test_neon.sh: $program is not installed; see the head of this script." >&2
    exit 77
  fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-std=c++20 -O2 -Wall -Wextra -Wpedantic -Wconversion -Werror -ffp-contract=off -I."
for source in fabric/kernels/*_neon.cpp; do
  # shellcheck disable=SC2086
  "$compiler" $flags -march=armv8.2-a+dotprod -c "$source" -o "$work/$(basename "$source").o"
done
for source in fabric/kernels/*_scalar.cpp fabric/kernels/kernel_table.cpp fabric/cpu/isa.cpp \
  tests/fabric/cross_kernels.cpp; do
  # shellcheck disable=SC2086
  "$compiler" $flags -c "$source" -o "$work/$(basename "$source").o"
done
"$compiler" -static "$work"/*.o -o "$work/cross_kernels"
report=$("$emulator" -cpu max "$work/cross_kernels") || { echo "$report"; exit 1; }
echo "$report"
case $report in
  *" neon "*) ;;
  *)
    echo "test_neon.sh: the emulated CPU did not run the NEON kernels." >&2
    exit 1
    ;;
esac
