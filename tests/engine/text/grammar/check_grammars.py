"""Judges constrained texts: check_grammars.py schemas|patterns|gbnf RUNNER

schemas:  1,000 random JSON Schemas (random_schemas.py). Every text that was generated under a
          schema's masks and ended is valid for python3-jsonschema, and valid instances are accepted
          in compact form, as json.dumps writes them, and indented; invalid ones are not.
patterns: random regular expressions: what is generated matches with Python's re, and random texts
          are accepted exactly when re.fullmatch says so.
gbnf:     the same for random GBNF grammars and the regular expressions that say the same.

All with fixed seeds, over the vocabulary TERN_TEST_DATA/tokenizers/llama-bpe.gguf.
Exit code 0: no mismatch; 1: mismatches, printed; 77: skipped, with the reason.
"""
import json
import os
import pathlib
import random
import re
import subprocess
import sys

import random_patterns
import random_schemas

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[3]
CASES = int(os.environ.get("TERN_GRAMMAR_CASES", "1000"))


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(77)


def run_tern(runner, cases):
    data = pathlib.Path(os.environ.get("TERN_TEST_DATA", ROOT / "../shared/data"))
    vocabulary = data / "tokenizers/llama-bpe.gguf"
    if not vocabulary.exists():
        skip(f"{vocabulary} is not there")
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    result = subprocess.run([runner, str(vocabulary)], input=lines.encode(), stdout=subprocess.PIPE,
                            check=True)
    return [json.loads(line) for line in result.stdout.decode().split("\n") if line]


class Report:
    def __init__(self):
        self.failures = 0
        self.counts = {}

    def count(self, what, number=1):
        self.counts[what] = self.counts.get(what, 0) + number

    def fail(self, message):
        self.failures += 1
        if self.failures <= 20:
            print("FAIL", message)

    def finish(self, *at_least):
        print(", ".join(f"{number} {what}" for what, number in self.counts.items()))
        for what, number in at_least:
            if self.counts.get(what, 0) < number:
                self.fail(f"only {self.counts.get(what, 0)} {what}; a true run has {number}")
        sys.exit(1 if self.failures else 0)


def spellings(instance):
    yield json.dumps(instance, ensure_ascii=False, separators=(",", ":"))
    yield json.dumps(instance, ensure_ascii=False)
    yield json.dumps(instance, ensure_ascii=False, indent=2)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def check_schemas(runner):
    try:
        import warnings
        warnings.simplefilter("ignore")
        import jsonschema
    except ImportError as error:
        skip(f"python3-jsonschema is not installed ({error})")
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    cases, judges = [], []
    for seed in range(CASES):
        r = random.Random(seed)
        generator = random_schemas.Generator(r)
        schema, make = generator.schema()
        instances = [make() for _ in range(3)]
        accept = [text for instance in instances for text in spellings(instance)]
        cases.append({"schema": schema, "generate": 3, "seed": seed, "accept": accept})
        judges.append((schema, instances))
    report = Report()
    times = []
    compile_times = []
    for case, (schema, instances), answer in zip(cases, judges, run_tern(runner, cases)):
        shown = json.dumps(schema, ensure_ascii=False)
        if "error" in answer:
            report.fail(f"refused: {answer['error']} for {shown}")
            continue
        times += answer["mask_us"]
        compile_times.append(answer["compile_ms"])
        judge = jsonschema.Draft202012Validator(schema, format_checker=checker)
        report.count("schemas")
        for instance in instances:
            judge.validate(instance)  # the generator's own promise
        for text, accepted in zip(case["accept"], answer["accepts"]):
            report.count("valid instances")
            if not accepted:
                report.fail(f"not accepted: {text} for {shown}")
        for text in answer["texts"]:
            report.count("texts")
            if text.get("stuck"):
                report.fail(f"no token may follow {text['text']!r} for {shown}")
            if not text["complete"]:
                continue
            report.count("complete texts")
            try:
                judge.validate(json.loads(text["text"]))
            except (jsonschema.ValidationError, ValueError) as error:
                report.fail(f"invalid: {text['text']!r} ({str(error).splitlines()[0]}) for {shown}")
    print(f"compile: median {percentile(compile_times, .5):.2f} ms, p99 "
          f"{percentile(compile_times, .99):.2f} ms; mask: median {percentile(times, .5):.1f} us, "
          f"p90 {percentile(times, .9):.0f} us, p99 {percentile(times, .99):.0f} us, "
          f"max {max(times):.0f} us of {len(times)}")
    report.finish(("schemas", CASES), ("complete texts", 2.5 * CASES), ("valid instances", 9 * CASES))


def check_texts(runner, sources, judge_of):
    """sources: (case, regular expression)."""
    report = Report()
    answers = run_tern(runner, [case for case, _ in sources])
    for (case, regex), answer in zip(sources, answers):
        judge = judge_of(regex)
        if "error" in answer:
            report.fail(f"refused: {answer['error']} for {case}")
            continue
        report.count("grammars")
        for text, accepted in zip(case["accept"], answer["accepts"]):
            report.count("matching texts" if judge(text) else "other texts")
            if bool(judge(text)) != accepted:
                report.fail(f"{text!r}: re says {bool(judge(text))}, Tern {accepted} for {regex!r}")
        for text in answer["texts"]:
            if not text["complete"]:
                continue
            report.count("complete texts")
            if not judge(text["text"]):
                report.fail(f"{text['text']!r} does not match {regex!r}")
    report.finish(("grammars", CASES), ("complete texts", CASES), ("matching texts", CASES / 5),
                  ("other texts", CASES))


def check_patterns(runner):
    sources = []
    for seed in range(CASES):
        r = random.Random(seed)
        regex = random_patterns.pattern(r)
        texts = [random_patterns.text(r) for _ in range(8)] + ["", "a", "aa"]
        sources.append(({"regex": regex, "generate": 3, "seed": seed, "accept": texts}, regex))
    check_texts(runner, sources, lambda regex: re.compile(regex, re.ASCII).fullmatch)


def check_gbnf(runner):
    sources = []
    for seed in range(CASES):
        r = random.Random(seed)
        grammar, regex = random_patterns.gbnf(r)
        texts = [random_patterns.text(r) for _ in range(8)] + ["", "a", "aa"]
        sources.append(({"gbnf": grammar, "generate": 3, "seed": seed, "accept": texts}, regex))
    check_texts(runner, sources, lambda regex: re.compile(regex).fullmatch)


def main():
    check, runner = sys.argv[1:3]
    {"schemas": check_schemas, "patterns": check_patterns, "gbnf": check_gbnf}[check](runner)


main()
