#!/bin/sh
# Fuzzes the GGUF reader, the tokenizers, the template engine, the Fabric's C interface and the
# parsers of answers under ASan and UBSan.
#
#   scripts/fuzz.sh                    each fuzzer, 1,000,000 executions
#   scripts/fuzz.sh 50000 tokenizer    so many, of these (gguf, tokenizer, template, tfmbs, answer)
#
# Needs clang and libclang-rt (scripts/deps.sh optional). What is found is kept in
# build/fuzz/corpus and taken up again by the next run; what fails is in build/fuzz/findings.
set -eu
cd "$(dirname "$0")/.."

runs=${1:-1000000}
case $runs in
  *[!0-9]* | "")
    echo "fuzz.sh: expected a number of executions, not \"$runs\"." >&2
    exit 2
    ;;
esac
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- gguf tokenizer template tfmbs answer

for name in "$@"; do
  if [ ! -f "tests/fuzz/${name}_fuzz.cpp" ]; then
    echo "fuzz.sh: there is no fuzzer $name; there are gguf, tokenizer, template, tfmbs and answer." >&2
    exit 2
  fi
done

programs=fuzz_seed_corpus
for name in "$@"; do programs="$programs ${name}_fuzz"; done
cmake --preset fuzz >/dev/null
# shellcheck disable=SC2086
cmake --build build/fuzz --target $programs
build/fuzz/tests/fuzz/fuzz_seed_corpus build/fuzz/seeds

for name in "$@"; do
  mkdir -p "build/fuzz/corpus/$name" build/fuzz/findings
  log=build/fuzz/$name.log
  if ! "build/fuzz/tests/fuzz/${name}_fuzz" -runs="$runs" -max_len=4096 -timeout=20 \
    -rss_limit_mb=3072 -print_final_stats=1 -dict="tests/fuzz/$name.dict" \
    -artifact_prefix="build/fuzz/findings/$name-" \
    "build/fuzz/corpus/$name" "build/fuzz/seeds/$name" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    echo "fuzz.sh: $name failed; the input is in build/fuzz/findings, the log is $log." >&2
    exit 1
  fi
  grep -E '^Done |number_of_executed_units|average_exec_per_sec' "$log" | sed "s/^/$name: /"
done
