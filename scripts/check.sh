#!/bin/sh
# What a change must pass: format, layers, clang-tidy, tests.
#
#   scripts/check.sh           clang-tidy on the files that differ from the upstream branch
#   scripts/check.sh --all     clang-tidy on every source file
#   scripts/check.sh --quick   format and layers only
set -eu
cd "$(dirname "$0")/.."

mode=${1:-changed}
case $mode in
  changed | --all | --quick) ;;
  *)
    echo "check.sh: expected --all, --quick or nothing, not \"$mode\"." >&2
    exit 2
    ;;
esac

folders="gguf fabric engine scheduler server config cli tests bench"

list_sources() {
  for folder in $folders; do
    [ ! -d "$folder" ] || find "$folder" -path '*/node_modules' -prune -o \
      \( -name '*.cpp' -o -name '*.h' \) -print
  done
}

echo "check.sh: format" >&2
list_sources | xargs clang-format --dry-run --Werror

echo "check.sh: layers" >&2
python3 scripts/check_layers.py --self-test
python3 scripts/check_skips.py --self-test
python3 scripts/check_layers.py

[ "$mode" != --quick ] || exit 0

./scripts/build.sh release
cmake --preset tidy >/dev/null
if [ "$mode" = --all ]; then
  files=$(list_sources | grep '\.cpp$')
else
  base=$(git merge-base HEAD '@{upstream}' 2>/dev/null || git rev-parse HEAD~1 2>/dev/null ||
    git rev-parse HEAD)
  files=$(git diff --name-only --diff-filter=d "$base" -- $folders | grep '\.cpp$' || true)
fi
# Kernels of other machines have no compile command here.
files=$(for file in $files; do
  ! grep -qF "/$file\"" build/tidy/compile_commands.json || echo "$file"
done)
if [ -n "$files" ]; then
  echo "check.sh: clang-tidy" >&2
  # shellcheck disable=SC2086
  printf '%s\n' $files | xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p build/tidy
fi

exec ./test.sh
