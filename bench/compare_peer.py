#!/usr/bin/env python3
"""Times `tern bench` and another runtime's bench programs in turn, A B A B, and prints the ratios.

The peer's programs are given by path; none is part of this project. Understood are the programs of the
llama.cpp family: llama-bench (prompt processing and generation), llama-batched-bench (generation of several
sequences at once) and llama-sweep-bench (generation behind a long context). Each round runs Tern and then the
peer; a round's ratio compares neighbours in time, and the median of the rounds' ratios is what counts on a
shared machine. The load average and Tern's measured limits stand beside the figures.

  bench/compare_peer.py --tern build/release/tern --model 2b-i2_s.gguf \\
      --llama-bench PEER/llama-bench --peer-model 2b-iq2_bn_r4.gguf --prompt 256 --generate 48 --rounds 3
  bench/compare_peer.py ... --llama-batched-bench PEER/llama-batched-bench --batch 8,16,32
  bench/compare_peer.py ... --llama-sweep-bench PEER/llama-sweep-bench --depth 4096
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys


def fail(message):
    sys.exit(f"compare_peer.py: {message}")


def run(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        fail(f"{command[0]} is not there.")
    except subprocess.CalledProcessError as error:
        tail = "\n".join((error.stderr or error.stdout or "").strip().splitlines()[-5:])
        fail(f"{' '.join(command)}\nended with status {error.returncode}:\n{tail}")
    return done.stdout + "\n" + done.stderr


def json_lines(text):
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


class Tern:
    def __init__(self, options):
        self.command = [options.tern, "bench", "--model", options.model, "--json", "--repetitions", "1",
                        "--threads", str(options.threads), *options.tern_arg]
        self.limits = {}
        self.isa = ""

    def measure(self, *arguments):
        """Tokens per second of the one test that the arguments ask for."""
        results = list(json_lines(run([*self.command, *arguments])))
        if len(results) != 1:
            fail(f"tern bench {' '.join(arguments)} gave {len(results)} results, expected 1.")
        self.isa = results[0]["isa"]
        key = " ".join(arguments)
        limit = results[0].get("limit_tokens_per_second", 0.0)
        self.limits.setdefault(key, []).append((limit, results[0].get("limit", "")))
        return results[0]["tokens_per_second"]["median"]

    def limit(self, *arguments):
        seen = self.limits[" ".join(arguments)]
        return statistics.median(value for value, _ in seen), seen[-1][1]


class Peer:
    def __init__(self, options):
        self.options = options
        self.common = ["-m", options.peer_model, "-t", str(options.threads), *options.peer_arg]

    def bench(self, prompt, generate):
        text = run([self.options.llama_bench, *self.common, "-p", str(prompt), "-n", str(generate), "-r", "1",
                    "-o", "json"])
        found = re.search(r"^\[.*^\]", text, re.S | re.M)
        if not found:
            fail("llama-bench printed no JSON array.")
        return json.loads(found.group())[-1]["avg_ts"]

    def batched(self, depth, generate, batch):
        context = batch * (depth + generate)
        text = run([self.options.llama_batched_bench, *self.common, "-c", str(context), "-b", "2048", "-npp",
                    str(depth), "-ntg", str(generate), "-npl", str(batch)])
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
                if re.match(r"\|\s*\d+ \|", line)]
        if len(rows) != 1:
            fail(f"llama-batched-bench printed {len(rows)} result rows, expected 1.")
        return float(rows[0][7])

    def sweep(self, depth, generate):
        """The row whose generation starts behind at least `depth` tokens."""
        step = 512
        text = run([self.options.llama_sweep_bench, *self.common, "-c", str(depth + 2 * step), "-ub", str(step),
                    "-n", str(generate), "--output-format", "jsonl"])
        rows = [row for row in json_lines(text) if row["n_kv"] >= depth - step]
        if not rows:
            fail(f"llama-sweep-bench printed no row at depth {depth}.")
        return rows[0]["speed_tg"]


def comparisons(options, tern, peer):
    """Yields (name, Tern's arguments, a function that measures the peer)."""
    if options.llama_bench:
        if options.prompt:
            n = options.prompt
            yield f"pp{n}", ["-p", str(n), "-n", "0"], lambda n=n: peer.bench(n, 0)
        if options.generate:
            n = options.generate
            yield f"tg{n}", ["-p", "0", "-n", str(n)], lambda n=n: peer.bench(0, n)
    if options.llama_batched_bench:
        for batch in options.batch:
            arguments = ["-p", "0", "-n", str(options.generate), "-b", str(batch), "-d", str(options.batch_depth)]
            yield (f"tg{options.generate} x {batch}", arguments,
                   lambda batch=batch: peer.batched(options.batch_depth, options.generate, batch))
    if options.llama_sweep_bench:
        for depth in options.depth:
            arguments = ["-p", "0", "-n", str(options.generate), "-d", str(depth)]
            yield (f"tg{options.generate} @ {depth}", arguments,
                   lambda depth=depth: peer.sweep(depth, options.generate))


def whole_numbers(text):
    return [int(part) for part in text.split(",")]


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tern", default="build/release/tern", help="the tern program")
    parser.add_argument("--model", required=True, help="GGUF file for Tern")
    parser.add_argument("--peer-model", required=True, help="GGUF file for the peer: the same shape")
    parser.add_argument("--llama-bench", help="path of the peer's llama-bench")
    parser.add_argument("--llama-batched-bench", help="path of the peer's llama-batched-bench")
    parser.add_argument("--llama-sweep-bench", help="path of the peer's llama-sweep-bench")
    parser.add_argument("--prompt", type=int, default=256, help="prompt tokens; 0 leaves the test out")
    parser.add_argument("--generate", type=int, default=48, help="generated tokens; 0 leaves the test out")
    parser.add_argument("--batch", type=whole_numbers, default=[8, 16, 32], help="sequences at once")
    parser.add_argument("--batch-depth", type=int, default=16, help="tokens of context of each sequence")
    parser.add_argument("--depth", type=whole_numbers, default=[4096], help="tokens of context")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3, help="rounds of A B")
    parser.add_argument("--tern-arg", action="append", default=[], help="a further argument for tern bench")
    parser.add_argument("--peer-arg", action="append", default=[], help="a further argument for the peer")
    parser.add_argument("--json", action="store_true", help="one JSON object per comparison")
    options = parser.parse_args(arguments)
    if not (options.llama_bench or options.llama_batched_bench or options.llama_sweep_bench):
        parser.error("name at least one of the peer's programs.")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1.")
    return options


def main():
    options = parse(sys.argv[1:])
    tern = Tern(options)
    peer = Peer(options)
    if not options.json:
        print(f"{'test':>14} {'tern t/s':>10} {'peer t/s':>10} {'ratio':>7} {'limit t/s':>10} {'reached':>8}  load")
    for name, arguments, measure_peer in comparisons(options, tern, peer):
        ours, theirs = [], []
        for number in range(options.rounds):
            print(f"\r{name}: round {number + 1} of {options.rounds} ", end="", file=sys.stderr, flush=True)
            ours.append(tern.measure(*arguments))
            theirs.append(measure_peer())
        print("\r", end="", file=sys.stderr)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs))
        limit, by = tern.limit(*arguments)
        load = os.getloadavg()[0]
        if options.json:
            print(json.dumps({"test": name, "tern": ours, "peer": theirs, "ratio": ratio, "limit": limit,
                              "limited_by": by, "isa": tern.isa, "threads": options.threads, "load": load}))
            continue
        mine = statistics.median(ours)
        reached = f"{mine / limit:8.0%}" if limit else f"{'-':>8}"
        print(f"{name:>14} {mine:10.1f} {statistics.median(theirs):10.1f} {ratio:7.2f} {limit:10.1f} {reached}"
              f"  {load:.1f}", flush=True)
    if not options.json:
        print(f"{tern.isa}, {options.threads} threads, {options.rounds} rounds of A B; ratio is the median of the rounds'")


if __name__ == "__main__":
    main()
