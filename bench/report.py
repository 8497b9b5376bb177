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
from html import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
PALETTE = ["#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#475569"]
INK, FAINT = "#1f2937", "#d1d5db"
FONT = "font-family='system-ui, DejaVu Sans, sans-serif'"


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


# Drawing ------------------------------------------------------------------------------------------------------------


def nice_ticks(low, high, count=5):
    span = (high - low) or 1
    step = 10 ** math.floor(math.log10(span / count))
    step *= min((factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count), default=10)
    first = math.floor(low / step)
    return [tick * step for tick in range(first, math.ceil(high / step) + 1)]


def label(value):
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value / 1000:g}k" if value % 100 == 0 else f"{value / 1000:.1f}k"
    return f"{value:.3g}"


def text(x, y, content, size=12, anchor="start", weight="normal", fill=INK):
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' font-weight='{weight}' "
            f"fill='{fill}'>{escape(str(content))}</text>")


def svg(width, height, title, parts):
    return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
            f"role='img' aria-label='{escape(title, quote=True)}' {FONT}>\n<rect width='{width}' height='{height}' "
            f"fill='white'/>\n" + "\n".join([text(16, 26, title, 15, weight="600"), *parts]) + "\n</svg>\n")


def legend(names, x, y):
    parts = []
    for i, name in enumerate(names):
        parts.append(f"<rect x='{x:.1f}' y='{y - 9}' width='12' height='12' rx='2' fill='{PALETTE[i % len(PALETTE)]}'/>")
        parts.append(text(x + 17, y + 1, name))
        x += 32 + 7.2 * len(name)
    return parts


def axes(left, top, width, height, ticks, unit):
    high = ticks[-1] or 1
    parts = [text(left, top - 9, unit, 11, fill="#6b7280")]
    for tick in ticks:
        y = top + height - height * tick / high
        parts.append(f"<line x1='{left}' y1='{y:.1f}' x2='{left + width}' y2='{y:.1f}' stroke='{FAINT}'/>")
        parts.append(text(left - 6, y + 4, label(tick), 11, "end"))
    return parts, high


def lines(title, unit, x_name, panels):
    """panels: [(name, {series: [(x, y)]})]; every panel has its own y scale, x positions are evenly spaced."""
    width, height, gap, left, top = 268, 200, 62, 60, 92
    names = list(dict.fromkeys(name for _, series in panels for name in series))
    unit = unit if isinstance(unit, list) else [unit] * len(panels)
    parts = legend(names, 16, 50) if len(names) > 1 else []
    for index, (name, series) in enumerate(panels):
        x0 = left + index * (width + gap)
        xs = sorted({x for points in series.values() for x, _ in points})
        ticks = nice_ticks(0, max((y for points in series.values() for _, y in points), default=1))
        axis, high = axes(x0, top, width, height, ticks, unit[index])
        parts += axis + [text(x0 + width, top - 9, name, 12, "end", "600")]

        def place(x):
            return x0 + 14 + (width - 28) * (xs.index(x) / max(1, len(xs) - 1))
        for x in xs:
            parts.append(text(place(x), top + height + 17, x, 11, "middle"))
        parts.append(text(x0 + width / 2, top + height + 34, x_name, 11, "middle", fill="#6b7280"))
        for series_name, points in series.items():
            colour = PALETTE[names.index(series_name) % len(PALETTE)]
            placed = [(place(x), top + height - height * y / high) for x, y in sorted(points)]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
            parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in placed]
    return svg(left + len(panels) * (width + gap) - gap + 20, top + height + 48, title, parts)


def bars(title, unit, groups):
    """groups: [(name, {series: (height, figure that stands on the bar)})]."""
    names = list(dict.fromkeys(name for _, series in groups for name in series))
    bar, left, top, height, gap = 44, 64, 92, 200, 30
    widest = sum(len(series) * bar + gap for _, series in groups)
    width = max(widest, 330, 30 + sum(32 + 7.2 * len(name) for name in names))
    # Room for the figure on the tallest one.
    ticks = nice_ticks(0, 1.1 * max(value for _, series in groups for value, _ in series.values()))
    parts, high = axes(left, top, width, height, ticks, unit)
    parts += legend(names, 16, 50) if len(names) > 1 else []
    x = left + gap / 2
    for name, series in groups:
        for series_name, (value, shown) in series.items():
            tall = height * value / high
            parts.append(f"<rect x='{x + 3:.1f}' y='{top + height - tall:.1f}' width='{bar - 6}' height='{tall:.1f}' "
                         f"rx='2' fill='{PALETTE[names.index(series_name) % len(PALETTE)]}'/>")
            parts.append(text(x + bar / 2, top + height - tall - 5, label(float(f"{shown:.3g}")), 11, "middle"))
            x += bar
        parts.append(text(x - len(series) * bar / 2, top + height + 18, name, 12, "middle"))
        x += gap
    return svg(int(left + width + 20), top + height + 34, title, parts)


# The report ---------------------------------------------------------------------------------------------------------


def speed(row):
    return row["tokens_per_second"]["median"]


def figure(value):
    """Four digits, no exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def rows_of(report, group, test=""):
    return [row for row in report["rows"] if row["group"] == group and row["test"].startswith(test)]


def grid_panels(report, test, x_key, series_key, series_name):
    panels = []
    for shape in dict.fromkeys(row["shape"] for row in rows_of(report, "grid")):
        series = {}
        for row in rows_of(report, "grid", test):
            if row["shape"] == shape:
                series.setdefault(series_name.format(row[series_key]), []).append((row[x_key], speed(row)))
        panels.append((shape, series))
    return panels


def path_groups(report, test):
    groups = {}
    for row in rows_of(report, "paths", test):
        groups.setdefault(row["shape"], {})[row["path"]] = speed(row)
    return [(shape, {path: (value / max(series.values()), value) for path, value in series.items()})
            for shape, series in groups.items()]


def sparsity_groups(rows, test, value):
    groups = {}
    for row in rows:
        if row["test"].startswith(test):
            groups.setdefault(f"{100 * row['zero_rate']:g} %", {})[row["form"]] = (value(row), value(row))
    return list(groups.items())


def sparsity_plots(rows):
    if not rows:
        return {}
    shape = rows[0]["shape"]
    dense = [row | {"form": ""} for row in rows if row["form"] == "all weights"]
    drawn = {
        "sparsity_speed": bars(f"Generation by zero weights ({shape})", "tokens/s", sparsity_groups(rows, "tg", speed)),
        "sparsity_prompts": bars(f"Prompts by zero weights ({shape})", "tokens/s", sparsity_groups(rows, "pp", speed)),
        "sparsity_skips": bars(f"Multiply-adds that can be skipped ({shape})", "% of all",
                               sparsity_groups(dense, "tg", lambda row: 100 * row["skip_rate"]))}
    if all(row["energy_proxy_joules_per_token"] > 0 for row in dense):
        drawn["sparsity_energy"] = bars(
            f"Tokens per joule, by the energy proxy ({shape})", "tokens/J (proxy)",
            sparsity_groups(dense, "tg", lambda row: 1 / row["energy_proxy_joules_per_token"]))
    return drawn


def pool_plots(rows):
    if not rows:
        return {}
    mib = [round(row["residency"]["pool_bytes"] / 2**20) for row in rows]
    panels = [("generation", {"": [(x, speed(row)) for x, row in zip(mib, rows)]}),
              ("copied into the pool", {"": [(x, row["residency"]["fetched_bytes_per_token"] / 1e6)
                                             for x, row in zip(mib, rows)]})]
    return {"pool": lines(f"By the size of the Fabric's pool ({rows[0]['shape']})", ["tokens/s", "MB per token"],
                          "MiB of the pool", panels)}


def prompt_panels(report):
    panels = {}
    for row in rows_of(report, "prompts"):
        tokens = int(row["test"][2:])
        panels.setdefault(row["shape"], []).append((tokens, tokens / speed(row)))
    return [(shape, {"": points}) for shape, points in panels.items()]


def plots(report):
    drawn = {}
    if rows_of(report, "grid"):
        drawn["generation"] = lines("Generation: all sequences together", "tokens/s", "sequences at once",
                                    grid_panels(report, "tg", "batch", "depth", "behind {} tokens"))
        drawn["prompts"] = lines("Prompt processing: all sequences together", "tokens/s", "tokens before, of a sequence",
                                 grid_panels(report, "pp", "depth", "batch", "{} at once"))
    if rows_of(report, "prompts"):
        drawn["first_token"] = lines("Time to read a whole prompt", "s", "tokens of the prompt", prompt_panels(report))
    for test, name in (("tg", "generation"), ("pp", "prompts")):
        if groups := path_groups(report, test):
            drawn[f"paths_{name}"] = bars(f"One sequence: {name}, tokens/s", "share of the fastest", groups)
    return drawn | sparsity_plots(rows_of(report, "sparsity")) | pool_plots(rows_of(report, "pool"))


def table(head, rows):
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head),
                      *(f"| {' | '.join(map(str, row))} |" for row in rows)]) + "\n"


def per_joule(row):
    joules = row["energy_proxy_joules_per_token"]
    return figure(1 / joules) if joules else "-"


def grid_table(report):
    rows = []
    for row in rows_of(report, "grid") + rows_of(report, "prompts"):
        limit = row["limit_tokens_per_second"]
        rows.append((row["shape"], row["test"], row["depth"], row["batch"], f"{figure(speed(row))}",
                     f"{100 * speed(row) / limit:.0f} % of {row['limit']}", f"{figure(row['bytes_per_token'] / 1e6)}",
                     per_joule(row)))
    return table(("shape", "test", "behind", "sequences", "tokens/s", "of the limit", "MB/token", "tokens/J (proxy)"),
                 rows)


def path_table(report):
    return table(("shape", "path", "test", "tokens/s", "least-greatest"),
                 [(row["shape"], row["path"], row["test"], f"{figure(speed(row))}",
                   f"{figure(row['tokens_per_second']['min'])}-{figure(row['tokens_per_second']['max'])}")
                  for row in rows_of(report, "paths")])


def sparsity_table(report):
    return table(("zeros", "form", "test", "tokens/s", "MB/token", "skipped", "tokens/J (proxy)"),
                 [(f"{100 * row['zero_rate']:g} %", row["form"], row["test"], f"{figure(speed(row))}",
                   f"{figure(row['bytes_per_token'] / 1e6)}", f"{row['skip_rate']:.1%}", per_joule(row))
                  for row in rows_of(report, "sparsity")])


def pool_table(report):
    return table(("share of the ternary weights", "pool", "tokens/s", "copied per token", "matrices found",
                  "copying, of it waited for"),
                 [(f"{100 * row['pool_share']:g} %", f"{row['residency']['pool_bytes'] / 2**20:.0f} MiB", f"{figure(speed(row))}",
                   f"{row['residency']['fetched_bytes_per_token'] / 1e6:.0f} MB",
                   f"{row['residency']['hit_rate']:.0%}",
                   f"{row['residency']['fetch_seconds']:.2f} s, {row['residency']['wait_seconds']:.2f} s")
                  for row in rows_of(report, "pool")])


def peer_sentence(report):
    peers = sorted({row["peer"] for row in report["rows"] if "peer" in row})
    if not peers:
        return "; no peer was given (`--peer`)."
    return (f", and a peer: {escape(', '.join(peers))}, with as many threads and a file of the same shape, in this run, "
            "not interleaved with ours.")


CAPTIONS = {
    "generation": "Generation", "prompts": "Prompts", "first_token": "Whole prompts", "paths_generation": "Paths: generation",
    "paths_prompts": "Paths: prompts", "sparsity_speed": "Sparse and dense weights",
    "sparsity_prompts": "Sparse and dense weights: prompts", "sparsity_skips": "Skips", "sparsity_energy": "Energy proxy",
    "pool": "Pool sizes"}


def below_plot(name, report):
    """What the page says below a plot."""
    if name == "prompts":
        return [f"`ppN` behind M tokens: the N tokens of each sequence that follow M others. Where a shape has fewer lines "
                "behind long contexts, K and V of so many sequences would have taken half of the machine's memory.", ""]
    if name == "paths_generation":
        return ["The same weights by the Fabric's kernels, by the plain loops that define what is correct, and as F16 by our "
                "own float path" + peer_sentence(report), "", path_table(report)]
    if name == "sparsity_prompts":
        return ["*All weights*: packed with their zeros, five in a byte or four; the time does not depend on zeros. *Non-zeros "
                "alone*: `--fabric-sparse always`. The default, `auto`, takes for each matrix what measured faster.", "",
                sparsity_table(report)]
    if name == "sparsity_skips":
        return ["A multiply-add can be skipped when its weight or its activation is zero: what the modelled Fabric saves. The "
                "energy proxy follows it; it is a table of picojoules per event and no measurement.", ""]
    if name == "pool":
        return ["`--fabric-pool`: matrices that do not fit wait in memory and are copied in ahead of their use.", "",
                pool_table(report)]
    return []


def markdown(report, images):
    machine = report["machine"]
    facts, limits = machine["machine"], machine.get("limits", {})
    lines_of_text = [
        f"# Benchmark report{' (quick)' if report['quick'] else ''}", "",
        f"{facts['cpu']}, {limits.get('threads', '?')} threads, kernels `{machine['isa']['chosen']}`, {report['date']}. "
        f"Limits measured before: DRAM {limits.get('read_bytes_per_second', 0) / 1e9:.0f} GB/s, int8 "
        f"{limits.get('int8_macs_per_second', 0) / 1e12:.2f} T multiply-adds/s. Load average {report['load_before'][0]:.1f} "
        f"before, {report['load_after'][0]:.1f} after ({facts['online_cpus']} CPUs): what others did takes its part of every "
        "figure, so compare within the report, and with the limit of each row, which was measured in the same process.", "",
        "Models are synthetic (`tern synth`): the dimensions of real ones, random weights, 42 % zeros unless said, "
        "I2_S with a Q6_K head. `ppN` brings N prompt tokens into the cache, `tgN` generates N tokens behind the context. "
        "Written by `bench/report.py`; the command writes every figure to `report.json`, too.", "",
    ]
    for name in images:
        lines_of_text += [f"## {CAPTIONS[name]}", "", f"![{CAPTIONS[name]}]({name}.svg)", "", *below_plot(name, report)]
    if report.get("failures"):
        lines_of_text += ["## Not measured", "", *(f"* {escape(failure)}" for failure in report["failures"]), ""]
    if report.get("eval"):
        lines_of_text += ["## Accuracy of the bundled model", "", table(
            ("task", "questions", "acc"),
            [(row["task"], row["questions"], f"{row['acc']:.3f}") for row in report["eval"] if "acc" in row])]
    lines_of_text += ["## All figures of contexts, batches and prompts", "", grid_table(report)]
    return "\n".join(lines_of_text)


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
