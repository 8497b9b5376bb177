#!/usr/bin/env python3
"""Measures Tern on this machine and writes a report: JSON, SVG plots and a Markdown page.

  bench/report.py --output report                      the whole: shapes tiny, 2b and 7b; 20 to 60 minutes, 20 GB of disk
  bench/report.py --output report --quick              tiny and 700m, short runs; some minutes
  bench/report.py --output report --peer PEER/llama-bench --peer-model 2b=peer-2b.gguf
  bench/report.py --output report --plots-only         draw again what report.json holds, of an interrupted run too

Models are synthetic (`tern synth`: real dimensions, random weights), so speed is theirs and text means nothing. Each
figure is the median of `--repetitions` runs of `tern bench` after a warm-up, in the grid of contexts and batches of
`--grid-repetitions`. report.json is written after every figure. Only Python's standard library is used.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from report_drawing import nice_ticks
from report_page import CAPTIONS, figure, markdown, plots, speed

ROOT = pathlib.Path(__file__).resolve().parent.parent


def fail(message):
    sys.exit(f"report.py: {message}")


# Planning -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Shape:
    """What `tern synth` gives a shape (cli/synthetic_model.cpp)."""
    context: int
    ternary: float    # weights
    kv_bytes: int     # of a token, f16


SHAPES = {"tiny": Shape(512, 1.6e6, 1024), "700m": Shape(2048, 0.68e9, 147456),
          "2b": Shape(4096, 2.08e9, 76800), "7b": Shape(4096, 6.48e9, 524288)}


@dataclasses.dataclass
class Job:
    """One run of `tern bench`, or of the peer."""
    group: str
    name: str
    shape: str
    arguments: list
    tokens: int             # that it computes, for the estimate of the time that is left
    results: int = 1
    kind: str = "I2_S"
    zero_rate: float = 0.42
    slowness: float = 1     # against the Fabric's kernels
    more: dict = dataclasses.field(default_factory=dict)

    def model(self):
        return (self.shape, self.kind, self.zero_rate)

    def seconds(self):
        """A guess; only shares of it matter."""
        return 3 + self.tokens * self.slowness * SHAPES[self.shape].ternary / 0.6e12


def plan(options):
    if options.quick:
        what = {"shapes": ["tiny", "700m"], "depths": [0, 512, 1024], "batches": [1, 2, 4], "prompts": [512],
                "generate": 8, "piece": 64, "rates": [0.0, 0.42, 0.9], "pools": [0.25, 1.0]}
    else:
        what = {"shapes": ["tiny", "2b", "7b"], "depths": [0, 512, 1024, 2048, 4096], "batches": [1, 2, 4, 8],
                "prompts": [512, 1024, 2048, 4096], "generate": 16, "piece": 64, "rates": [0.0, 0.42, 0.7, 0.9, 0.95],
                "pools": [0.125, 0.25, 0.5, 0.75, 0.9, 1.0]}
    what["shapes"] = options.shapes or what["shapes"]
    # The shape of the plots that need only one.
    what["single"] = "2b" if "2b" in what["shapes"] else what["shapes"][-1]
    return what


def available_bytes():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def within(shape, lengths, room):
    """The lengths that leave room for so many tokens; what is longer becomes what fits."""
    most = SHAPES[shape].context - room
    return sorted({min(length, most) for length in lengths})


def grid_jobs(options, what, shape):
    """Contexts and batches; fewer sequences at once where their K and V would take half of the memory that is there."""
    most = available_bytes() / 2 / SHAPES[shape].kv_bytes
    by_batches = {}
    for depth in within(shape, what["depths"], what["piece"]):
        batches = tuple(batch for batch in what["batches"] if batch * (depth + what["piece"]) <= most)
        by_batches.setdefault(batches, []).append(depth)
    for batches, depths in by_batches.items():
        if not batches:
            continue
        each = what["piece"] + what["generate"]
        yield Job("grid", f"{shape}, {len(depths)} contexts x {len(batches)} batches", shape,
                  ["-p", what["piece"], "-n", what["generate"], "--depth", ",".join(map(str, depths)),
                   "--batch", ",".join(map(str, batches)), "-r", options.grid_repetitions],
                  max(batches) * max(depths) + sum(batches) * len(depths) * each * (1 + options.grid_repetitions),
                  results=2 * len(batches) * len(depths))


def path_jobs(options, what, shape):
    """The same model by the kernels, by the plain reference, as F16, and by a peer."""
    runs = 1 + options.repetitions
    generate = what["generate"]
    size, tokens = ["-p", 128, "-n", generate, "-r", options.repetitions], (128 + generate) * runs
    yield Job("paths", f"{shape} by the Fabric's kernels", shape, size, tokens, 2, more={"path": "Fabric"})
    few = [128, generate] if shape == "tiny" else [2, 1]
    yield Job("paths", f"{shape} by the reference device", shape,
              ["-p", few[0], "-n", few[1], "-r", 1, "--fabric-device", "reference"], sum(few) * 2, 2, slowness=300,
              more={"path": "reference"})
    if shape in options.peer_models:
        yield Job("paths", f"{shape} by the peer", shape, size, tokens, 2, more={"path": "peer"})
    yield Job("paths", f"{shape} as F16", shape, size, tokens, 2, kind="F16", slowness=6, more={"path": "F16"})


def prompt_jobs(options, what, shape):
    for length in within(shape, what["prompts"], 0):
        yield Job("prompts", f"{shape}, a prompt of {length} tokens", shape,
                  ["-p", length, "-n", 0, "-r", options.grid_repetitions], length * (1 + options.grid_repetitions))


def pool_jobs(options, what):
    shape, generate = what["single"], what["generate"]
    packed = SHAPES[shape].ternary / 5  # PT-5: five weights in a byte
    for share in what["pools"]:
        yield Job("pool", f"{shape}, a pool for {share:.0%} of the ternary weights", shape,
                  ["-p", 0, "-n", generate, "-r", options.repetitions, "--fabric-layout", "pt5",
                   "--fabric-pool", f"{math.ceil(1.01 * share * packed / 2**20)}MiB"],
                  3 * generate * (1 + options.repetitions), more={"pool_share": share})


def sparsity_jobs(options, what):
    shape, generate = what["single"], what["generate"]
    for rate in what["rates"]:
        for sparse, form in (("never", "all weights"), ("always", "non-zeros alone")):
            yield Job("sparsity", f"{shape} with {rate:.0%} zeros, {form}", shape,
                      ["-p", 128, "-n", generate, "-r", options.repetitions, "--fabric-sparse", sparse],
                      (128 + generate) * (1 + options.repetitions), 2, zero_rate=rate,
                      more={"zero_rate": rate, "form": form})


def jobs(options, what):
    """In the order of their models, so that large ones need not lie beside each other."""
    planned = []
    for shape in what["shapes"]:
        planned += [*path_jobs(options, what, shape), *grid_jobs(options, what, shape)]
        if shape == what["single"]:
            planned += [*pool_jobs(options, what), *sparsity_jobs(options, what)]
    for shape in what["shapes"]:
        planned += prompt_jobs(options, what, shape)
    return planned


# Running ------------------------------------------------------------------------------------------------------------


class Progress:
    """A line per step on standard error, with the time that is left as the steps so far suggest."""

    def __init__(self, planned):
        self.results = sum(job.results for job in planned)
        self.all = sum(job.seconds() for job in planned)
        self.done, self.spent, self.start = 0, 0.0, time.monotonic()

    def say(self, what):
        passed = time.monotonic() - self.start
        left = passed / self.spent * (self.all - self.spent) / 60 if self.spent else 0
        hint = f", about {left:.0f} min left" if left >= 1 else ""
        print(f"[{self.done}/{self.results}{hint}] {what}", file=sys.stderr, flush=True)

    def result(self, job, row):
        self.done += 1
        self.spent += job.seconds() / job.results
        self.say(f"{row['test']}, {row['batch']} at once behind {row['depth']}: {figure(speed(row))} tokens/s"
                 if job.group == "grid" else f"{row['test']}: {figure(speed(row))} tokens/s")


class CommandFailed(Exception):
    pass


def run(command, on_line=None):
    """The standard output; each line is handed on as it comes."""
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=errors,
                                       text=True)
        except FileNotFoundError:
            fail(f"{command[0]} is not there.")
        lines_read = []
        try:
            for line in process.stdout:
                lines_read.append(line)
                if on_line:
                    on_line(line)
        except KeyboardInterrupt:
            process.kill()
            raise
        if process.wait():
            errors.seek(0)
            tail = "\n".join((errors.read() or "".join(lines_read)).strip().splitlines()[-3:])
            raise CommandFailed(f"{pathlib.Path(command[0]).name} ended with status {process.returncode}: {tail}")
    return "".join(lines_read)


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


class Lab:
    """Makes synthetic models once each and benches them."""

    def __init__(self, options, report, progress):
        self.options, self.report, self.progress = options, report, progress
        self.folder = pathlib.Path(options.work or options.output) / "models"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, shape, kind, zero_rate):
        return self.folder / f"{shape}-{kind}-{zero_rate:g}.gguf"

    def model(self, shape, kind, zero_rate):
        path = self.path(shape, kind, zero_rate)
        if not path.exists():
            self.progress.say(f"writing {path.name}")
            part = path.with_suffix(".part")
            run([self.options.tern, "synth", "--shape", shape, "--type", kind, "--zero-rate", zero_rate,
                 "--embedding-type", "F16" if kind == "F16" else "Q6_K", "-o", part])
            part.rename(path)
        return path

    def drop(self, path):
        if not self.options.keep_models:
            path.unlink(missing_ok=True)

    def keep(self, job, row):
        self.report["rows"].append({"group": job.group, "shape": job.shape, "load": os.getloadavg()[0], **job.more,
                                    **row})
        self.report["load_after"] = os.getloadavg()
        write_report(self.options, self.report)
        self.progress.result(job, row)

    def bench(self, job):
        threads = ["--threads", self.options.threads] if self.options.threads else []

        def on_line(line):
            if line.startswith("{"):
                self.keep(job, json.loads(line))
        run([self.options.tern, "bench", "--model", self.model(*job.model()), "--json", *threads, *job.arguments],
            on_line)

    def peer(self, job):
        ours = (row["threads"] for row in reversed(self.report["rows"]) if "threads" in row)
        threads = self.options.threads or next(ours)
        printed = run([self.options.peer, "-m", self.options.peer_models[job.shape], "-t", threads, *job.arguments,
                       "-o", "json"])
        found = re.search(r"^\[.*^\]", printed, re.S | re.M)
        if not found:
            raise CommandFailed(f"{self.options.peer} printed no JSON array.")
        for row in json.loads(found.group()):
            tokens_per_second = sorted(row.get("samples_ts") or [row["avg_ts"]])
            name = f"llama-bench {row.get('build_commit', '?')}, {row.get('model_type', '?')}"
            self.keep(job, {"test": f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}", "batch": 1,
                            "depth": 0, "peer": name,
                            "tokens_per_second": {"median": statistics.median(tokens_per_second),
                                                  "min": tokens_per_second[0], "max": tokens_per_second[-1]}})

    def measure(self, planned):
        for index, job in enumerate(planned):
            self.progress.say(f"{job.group}: {job.name}")
            try:
                (self.peer if job.more.get("path") == "peer" else self.bench)(job)
            except CommandFailed as failure:  # one that does not fit the memory must not end the others
                print(f"report.py: {failure}", file=sys.stderr, flush=True)
                self.report["failures"].append(f"{job.group}: {job.name}")
            except KeyboardInterrupt:
                print("report.py: interrupted; the page has what was measured", file=sys.stderr, flush=True)
                self.report["failures"] += [f"{rest.group}: {rest.name}" for rest in planned[index:]]
                return
            if all(later.model() != job.model() for later in planned[index + 1:]):
                self.drop(self.path(*job.model()))


def write_report(options, report):
    (pathlib.Path(options.output) / "report.json").write_text(json.dumps(report, indent=1) + "\n")


def measure(options):
    what = plan(options)
    for shape in what["shapes"]:
        if shape not in SHAPES:
            fail(f"There is no shape \"{shape}\"; there are {', '.join(SHAPES)}.")
    planned = jobs(options, what)
    progress = Progress(planned)
    progress.say("the machine")
    report = {"version": 2, "quick": options.quick, "date": time.strftime("%Y-%m-%d", time.gmtime()),
              "load_before": os.getloadavg(), "load_after": os.getloadavg(), "rows": [], "failures": [], "plan": what}
    report["machine"] = json.loads(subprocess.run([options.tern, "doctor", "--json"], capture_output=True, text=True,
                                                  check=False).stdout)
    Lab(options, report, progress).measure(planned)
    for task in options.eval:
        progress.say(f"eval: {task}")
        report.setdefault("eval", []).extend(json_lines(run(
            [options.tern, "eval", task, "--json", *(["--limit", "100"] if options.quick else [])])))
    return report


def self_test_plan():
    """Every shape has each of the tests, within its context, and every model is done with in one go."""
    options = argparse.Namespace(quick=False, shapes=None, repetitions=3, grid_repetitions=1, peer_models={"2b": "x"})
    what = plan(options)
    planned = jobs(options, what)
    for shape in what["shapes"]:
        assert {job.group for job in planned if job.shape == shape} >= {"grid", "paths", "prompts"}, shape
    assert [job.more.get("path") for job in planned if job.group == "paths" and job.shape == "2b"] == [
        "Fabric", "reference", "peer", "F16"]
    assert len({job.more["pool_share"] for job in planned if job.group == "pool"}) == 6
    assert within("tiny", [0, 512, 4096], 64) == [0, 448] and within("2b", [512, 4096], 64) == [512, 4032]


def self_test():
    """Draws invented figures: valid XML, every mark within its picture, every figure in the page."""
    import xml.etree.ElementTree

    def row(group, test, value, **more):
        return {"group": group, "test": test, "shape": "tiny", "batch": 1, "depth": 0, "limit": "memory",
                "limit_tokens_per_second": 2 * value, "bytes_per_token": 1e6, "skip_rate": 0.5,
                "energy_proxy_joules_per_token": 0.01, "tokens_per_second": {"median": value, "min": value, "max": value},
                **more}
    pool = {"pool_bytes": 2**27, "fetched_bytes_per_token": 2e8, "hit_rate": 0.9, "fetch_seconds": 2, "wait_seconds": 1}
    report = {"quick": True, "date": "2026-01-01", "load_before": [0.5], "load_after": [1.5], "rows": [
        *(row("grid", test, 100.0 * batch + depth, batch=batch, depth=depth)
          for test in ("pp64", "tg8") for batch in (1, 2, 8) for depth in (0, 512, 3968)),
        *(row("prompts", f"pp{length}", 300.0) for length in (512, 4096)),
        *(row("paths", test, value, path=path) for test in ("pp128", "tg8")
          for path, value in (("Fabric", 1234.5), ("reference", 0.02), ("F16", 900.0), ("a <peer> & \"more\"", 900.0))),
        *(row("sparsity", test, 10.0, zero_rate=rate, form=form) for test in ("pp128", "tg8") for rate in (0.0, 0.9)
          for form in ("all weights", "non-zeros alone")),
        *(row("pool", "tg8", 3.0 + share, pool_share=share, residency=pool | {"pool_bytes": int(2**27 * share)})
          for share in (0.5, 1.0))],
        "machine": {"machine": {"cpu": "CPU", "online_cpus": 2}, "isa": {"chosen": "avx2"}}}
    drawn = plots(report)
    assert set(drawn) == set(CAPTIONS), set(drawn)
    for name, content in drawn.items():
        root = xml.etree.ElementTree.fromstring(content)
        width, height = float(root.get("width")), float(root.get("height"))
        marks = [mark for mark in root.iter() if mark.tag.split("}")[-1] in ("rect", "circle", "text")]
        assert len(marks) > 8, name
        for mark in marks:
            x = float(mark.get("x") or mark.get("cx") or 0)
            y = float(mark.get("y") or mark.get("cy") or 0)
            assert 0 <= x <= width and 0 <= y <= height, f"{name}: {mark.attrib} leaves the picture"
    page = markdown(report, drawn)
    for wanted in ("| tiny | pp64 | 512 | 1 | 612 |", "| Fabric | pp128 | 1234 |", "50 % of memory", "0.5 before",
                   "| 50 % | 64 MiB | 3.5 | 200 MB | 90% |", "| 90 % | non-zeros alone | tg8 | 10 |"):
        assert wanted in page, f"{wanted!r} is not in the page"
    assert not plots(report | {"rows": []}) and "# Benchmark" in markdown(report | {"rows": []}, {})
    self_test_plan()
    for low, high in ((0, 1), (0, 0.034), (0, 97), (0, 123456), (0, 0)):
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low and ticks[-1] >= high and len(ticks) <= 12, (low, high, ticks)
    print("report.py draws what it is given")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tern", default=str(ROOT / "build" / "release" / "tern"), help="the program to measure")
    parser.add_argument("--output", default="report", help="folder for report.json, report.md and the plots")
    parser.add_argument("--work", help="folder for the synthetic models (the output's)")
    parser.add_argument("--quick", action="store_true", help="small shapes, short runs")
    parser.add_argument("--shapes", type=lambda value: value.split(","), help="these instead, with commas between")
    parser.add_argument("--threads", type=int, help="compute threads (all that may be used)")
    parser.add_argument("--repetitions", type=int, help="measured runs of each test (3; 1 with --quick)")
    parser.add_argument("--grid-repetitions", type=int, default=1, help="those of contexts, batches and prompts (1)")
    parser.add_argument("--peer", help="a llama-bench program to set beside Tern")
    parser.add_argument("--peer-model", action="append", default=[], metavar="SHAPE=FILE", help="its model of a shape")
    parser.add_argument("--eval", action="append", default=[], help="JSONL for `tern eval` with the bundled model")
    parser.add_argument("--keep-models", action="store_true", help="leave the synthetic models there")
    parser.add_argument("--self-test", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--plots-only", action="store_true", help="draw what report.json of the output folder holds")
    options = parser.parse_args()
    options.peer_models = dict(pair.split("=", 1) for pair in options.peer_model if "=" in pair)
    if len(options.peer_models) != len(options.peer_model):
        parser.error("--peer-model must be SHAPE=FILE")
    if bool(options.peer) != bool(options.peer_models):
        parser.error("--peer and --peer-model belong together")
    options.repetitions = options.repetitions or (1 if options.quick else 3)
    return options


def main():
    options = parse_arguments()
    if options.self_test:
        return self_test()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    file = output / "report.json"
    if options.plots_only:
        report = json.loads(file.read_text())
    else:
        report = measure(options)
        write_report(options, report)
    drawn = plots(report)
    for name, content in drawn.items():
        (output / f"{name}.svg").write_text(content)
    (output / "report.md").write_text(markdown(report, drawn))
    print(f"{output / 'report.md'}, {len(drawn)} plots, {file}")
    if report.get("failures"):
        fail(f"{len(report['failures'])} of the tests were not measured; the page names them.")


if __name__ == "__main__":
    main()
