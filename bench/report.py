#!/usr/bin/env python3
"""Measures Tern on this machine and writes a report: JSON, SVG plots and a Markdown page.

  bench/report.py --output report                      the whole: shapes tiny, 2b and 7b; an hour or two, 20 GB of disk
  bench/report.py --output report --quick              tiny and 700m, short runs; some minutes
  bench/report.py --output report --peer PEER/llama-bench --peer-model 2b=peer-2b.gguf
  bench/report.py --output report --eval arc_easy.jsonl --plots-only      draw again what report.json holds

Models are synthetic (`tern synth`: real dimensions, random weights), so speed is theirs and text means nothing. Each
figure is the median of `--repetitions` runs of `tern bench` after a warm-up. Only Python's standard library is used.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time
from html import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
PALETTE = ["#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#475569"]
INK, FAINT = "#1f2937", "#d1d5db"
FONT = "font-family='system-ui, DejaVu Sans, sans-serif'"


def fail(message):
    sys.exit(f"report.py: {message}")


# Running ------------------------------------------------------------------------------------------------------------


class Progress:
    """One line per step on standard error, with the time that is left as the steps so far suggest."""

    def __init__(self, steps):
        self.steps, self.done, self.start = steps, 0, time.monotonic()

    def step(self, what):
        spent = time.monotonic() - self.start
        left = f", {spent / self.done * (self.steps - self.done) / 60:.0f} min left" if self.done else ""
        print(f"[{self.done + 1}/{self.steps}{left}] {what}", file=sys.stderr, flush=True)
        self.done += 1


def run(command):
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except FileNotFoundError:
        fail(f"{command[0]} is not there.")
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        fail(f"{' '.join(map(str, command))}\nended with status {done.returncode}:\n{tail}")
    return done.stdout


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


class Lab:
    """Makes synthetic models once each and benches them."""

    def __init__(self, options, progress):
        self.options, self.progress = options, progress
        self.folder = pathlib.Path(options.work or options.output) / "models"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows = []

    def model(self, shape, kind="I2_S", zero_rate=0.42):
        path = self.folder / f"{shape}-{kind}-{zero_rate:g}.gguf"
        if not path.exists():
            part = path.with_suffix(".part")
            run([self.options.tern, "synth", "--shape", shape, "--type", kind, "--zero-rate", zero_rate,
                 "--embedding-type", "F16" if kind == "F16" else "Q6_K", "-o", part])
            part.rename(path)
        return path

    def drop(self, path):
        """Large models do not stay beside each other."""
        if not self.options.keep_models:
            path.unlink(missing_ok=True)

    def bench(self, group, what, model, *arguments, **more):
        self.progress.step(f"{group}: {what}")
        threads = ["--threads", self.options.threads] if self.options.threads else []
        text = run([self.options.tern, "bench", "--model", model, "--json", "-r", self.options.repetitions,
                    *threads, *arguments])
        for row in json_lines(text):
            self.rows.append({"group": group, "load": os.getloadavg()[0], **more, **row})


# What `tern synth` gives its shapes.
CONTEXTS = {"tiny": 512, "700m": 2048, "2b": 4096, "7b": 4096}


def depths(shape, what):
    """The sequences that leave room for an answer; a shape with a short context has half of it."""
    context = CONTEXTS.get(shape, max(what["sequences"]) * 2)
    return [length for length in what["sequences"] if length + what["generate"] <= context] or [context // 2]


def plan(options):
    if options.quick:
        return {"shapes": ["tiny", "700m"], "sequences": [512, 1024], "batches": [1, 2, 4], "generate": 8,
                "sparsity": "700m", "paths": ["tiny", "700m"]}
    return {"shapes": ["tiny", "2b", "7b"], "sequences": [512, 1024, 2048, 4096], "batches": [1, 2, 4, 8],
            "generate": 16, "sparsity": "2b", "paths": ["tiny", "2b", "7b"]}


def measure(options):
    what = plan(options)
    if options.shapes:
        what["shapes"] = what["paths"] = options.shapes
        what["sparsity"] = options.shapes[-1]
    pools = "--fabric-pool" in run([options.tern, "bench", "--help"])
    rates = [0.0, 0.42, 0.7, 0.9]
    steps = (2 * sum(len(depths(shape, what)) for shape in what["shapes"]) + len(rates) + 3 * len(what["paths"]) +
             (3 if pools else 0) + len(options.peer_models) + len(options.eval) + 1)
    lab = Lab(options, Progress(steps))
    lab.progress.step("the machine")
    report = {"version": 1, "quick": options.quick, "date": time.strftime("%Y-%m-%d", time.gmtime()),
              "load_before": os.getloadavg(), "rows": lab.rows, "plan": what}
    report["machine"] = json.loads(subprocess.run([options.tern, "doctor", "--json"], capture_output=True, text=True,
                                                  check=False).stdout)
    batches = ",".join(map(str, what["batches"]))
    for shape in what["shapes"]:
        path = lab.model(shape)
        for length in depths(shape, what):
            lab.bench("grid", f"{shape}, prompts of {length} tokens", path, "-p", length, "-n", 0,
                      "--batch", batches, shape=shape, sequence=length)
            lab.bench("grid", f"{shape}, generation behind {length} tokens", path, "-p", 0, "-n", what["generate"],
                      "--depth", length, "--batch", batches, shape=shape, sequence=length)
        if shape in what["paths"]:
            paths(lab, options, shape, what)
        if shape == what["sparsity"] and pools:
            pool_sizes(lab, shape, path, what)
        lab.drop(path)
    for rate in rates:
        path = lab.model(what["sparsity"], zero_rate=rate)
        lab.bench("sparsity", f"{what['sparsity']} with {rate:.0%} zeros", path, "-p", 128, "-n", what["generate"],
                  shape=what["sparsity"], zero_rate=rate)
        lab.drop(path)
    for task in options.eval:
        lab.progress.step(f"eval: {task}")
        report.setdefault("eval", []).extend(json_lines(run(
            [options.tern, "eval", task, "--json", *(["--limit", "100"] if options.quick else [])])))
    report["load_after"] = os.getloadavg()
    return report


def paths(lab, options, shape, what):
    """The same model by the kernels, by the plain reference, as F16, and by a peer."""
    size = ["-p", 128, "-n", what["generate"]]
    lab.bench("paths", f"{shape} by the Fabric's kernels", lab.model(shape), *size, shape=shape, path="Fabric")
    small = ["-p", 8 if shape != "tiny" else 128, "-n", 2 if shape != "tiny" else what["generate"]]
    lab.bench("paths", f"{shape} by the reference device", lab.model(shape), *small, "--fabric-device", "reference",
              shape=shape, path="reference")
    floats = lab.model(shape, "F16")
    lab.bench("paths", f"{shape} as F16", floats, *size, shape=shape, path="F16")
    lab.drop(floats)
    if shape not in options.peer_models:
        return
    lab.progress.step(f"paths: {shape} by the peer")
    threads = options.threads or lab.rows[-1]["threads"]
    text = run([options.peer, "-m", options.peer_models[shape], "-t", threads, "-p", 128, "-n", what["generate"],
                "-r", options.repetitions, "-o", "json"])
    found = re.search(r"^\[.*^\]", text, re.S | re.M)
    if not found:
        fail(f"{options.peer} printed no JSON array.")
    for row in json.loads(found.group()):
        test = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
        speed = row["avg_ts"]
        lab.rows.append({"group": "paths", "shape": shape, "path": "peer", "test": test, "batch": 1,
                         "tokens_per_second": {"median": speed, "min": speed, "max": speed}})


def pool_sizes(lab, shape, path, what):
    size = path.stat().st_size
    for share in (0.25, 0.5, 1.0):
        pool = max(1, int(size * share)) >> 20
        lab.bench("pool", f"{shape}, weights in a pool of {pool} MiB", path, "-p", 0, "-n", what["generate"],
                  "--fabric-pool", f"{pool}MiB", shape=shape, pool_mib=pool)


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
    parts = legend(names, 16, 50)
    for index, (name, series) in enumerate(panels):
        x0 = left + index * (width + gap)
        xs = sorted({x for points in series.values() for x, _ in points})
        ticks = nice_ticks(0, max((y for points in series.values() for _, y in points), default=1))
        axis, high = axes(x0, top, width, height, ticks, unit)
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


def plots(report):
    drawn = {
        "generation": lines("Generation: all sequences together", "tokens/s", "sequences at once",
                            grid_panels(report, "tg", "batch", "sequence", "behind {} tokens")),
        "prompts": lines("Prompt processing: all sequences together", "tokens/s", "prompt tokens of a sequence",
                         grid_panels(report, "pp", "sequence", "batch", "{} at once")),
    }
    for test, name in (("tg", "generation"), ("pp", "prompts")):
        groups = {}
        for row in rows_of(report, "paths", test):
            groups.setdefault(row["shape"], {})[row["path"]] = speed(row)
        if groups:
            shape_max = [(shape, {path: (value / max(series.values()), value) for path, value in series.items()})
                         for shape, series in groups.items()]
            drawn[f"paths_{name}"] = bars(f"One sequence: {name}, tokens/s", "share of the fastest", shape_max)
    sparse = rows_of(report, "sparsity")
    if sparse:
        def by_rate(test, value):
            return [(f"{row['zero_rate']:.0%}", {"": (value(row), value(row))}) for row in sparse if row["test"].startswith(test)]
        shape = sparse[0]["shape"]
        drawn["sparsity_speed"] = bars(f"Generation by zero weights ({shape})", "tokens/s", by_rate("tg", speed))
        drawn["sparsity_skips"] = bars(f"Multiply-adds that can be skipped ({shape})", "% of all",
                                       by_rate("tg", lambda row: 100 * row["skip_rate"]))
        if all(row["energy_proxy_joules_per_token"] > 0 for row in sparse):
            drawn["sparsity_energy"] = bars(f"Tokens per joule, by the energy proxy ({shape})", "tokens/J (proxy)",
                                            by_rate("tg", lambda row: 1 / row["energy_proxy_joules_per_token"]))
    pool = rows_of(report, "pool")
    if pool:
        drawn["pool"] = bars(f"Generation by pool ({pool[0]['shape']})", "tokens/s",
                             [(f"{row['pool_mib']} MiB", {"": (speed(row), speed(row))}) for row in pool])
    return drawn


def table(head, rows):
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head),
                      *(f"| {' | '.join(map(str, row))} |" for row in rows)]) + "\n"


def grid_table(report):
    rows = []
    for row in rows_of(report, "grid"):
        limit = row["limit_tokens_per_second"]
        joules = row["energy_proxy_joules_per_token"]
        rows.append((row["shape"], row["test"], row["sequence"], row["batch"], f"{speed(row):.1f}",
                     f"{row['tokens_per_second']['min']:.1f}-{row['tokens_per_second']['max']:.1f}",
                     f"{100 * speed(row) / limit:.0f} % of {row['limit']}", f"{row['bytes_per_token'] / 1e6:.1f}",
                     f"{1 / joules:.1f}" if joules else "-"))
    return table(("shape", "test", "context", "sequences", "tokens/s", "least-greatest", "of the limit", "MB/token",
                  "tokens/J (proxy)"), rows)


def markdown(report, images):
    machine = report["machine"]
    facts, limits = machine["machine"], machine.get("limits", {})
    lines_of_text = [
        f"# Benchmark report{' (quick)' if report['quick'] else ''}", "",
        f"{facts['cpu']}, {limits.get('threads', '?')} threads, kernels `{machine['isa']['chosen']}`, {report['date']}. "
        f"Limits measured before: DRAM {limits.get('read_bytes_per_second', 0) / 1e9:.0f} GB/s, int8 "
        f"{limits.get('int8_macs_per_second', 0) / 1e12:.2f} T multiply-adds/s. Load average {report['load_before'][0]:.1f} "
        f"before, {report['load_after'][0]:.1f} after ({facts['online_cpus']} CPUs): what others did takes its part of every "
        "figure, so compare within the report, and the limit of each row, which was measured in the same process.", "",
        "Models are synthetic (`tern synth`): the dimensions of real ones, random weights, 42 % zeros unless said, "
        "I2_S with a Q6_K head. `ppN` brings N prompt tokens into the cache, `tgN` generates N tokens behind the context. "
        "Written by `bench/report.py`; the figures are in `report.json`.", "",
    ]
    captions = {
        "generation": "Generation", "prompts": "Prompts", "paths_generation": "Paths: generation",
        "paths_prompts": "Paths: prompts", "sparsity_speed": "Sparse and dense weights", "sparsity_skips": "Skips",
        "sparsity_energy": "Energy proxy", "pool": "Pool sizes"}
    for name in images:
        lines_of_text += [f"## {captions[name]}", "", f"![{captions[name]}]({name}.svg)", ""]
        if name == "paths_generation":
            lines_of_text += [
                "The same weights by the Fabric's kernels, by the plain loops that define what is correct, and as F16 by our "
                "own float path" + (", and the peer." if any(r.get("path") == "peer" for r in report["rows"]) else
                                    "; no peer was given (`--peer`)."), "",
                table(("shape", "path", "test", "tokens/s"),
                      [(row["shape"], row["path"], row["test"], f"{speed(row):.2f}") for row in rows_of(report, "paths")])]
        if name == "sparsity_skips":
            lines_of_text += ["CPU kernels do not skip: their time does not depend on zeros. The skips are what the modelled "
                              "Fabric saves, and the energy proxy follows them.", ""]
    if report.get("eval"):
        lines_of_text += ["## Accuracy of the bundled model", "", table(
            ("task", "questions", "acc"),
            [(row["task"], row["questions"], f"{row['acc']:.3f}") for row in report["eval"] if "acc" in row])]
    lines_of_text += ["## All figures of the grid", "", grid_table(report)]
    return "\n".join(lines_of_text)


def self_test():
    """Draws invented figures: valid XML, every mark within its picture, every figure in the page."""
    import xml.etree.ElementTree

    def row(group, test, value, **more):
        return {"group": group, "test": test, "shape": "tiny", "batch": 1, "sequence": 512, "limit": "memory",
                "limit_tokens_per_second": 2 * value, "bytes_per_token": 1e6, "skip_rate": 0.5,
                "energy_proxy_joules_per_token": 0.01, "tokens_per_second": {"median": value, "min": value, "max": value},
                **more}
    report = {"quick": True, "date": "2026-01-01", "load_before": [0.5], "load_after": [1.5], "rows": [
        *(row("grid", test, 100.0 * batch + length, batch=batch, sequence=length)
          for test in ("pp512", "tg8") for batch in (1, 2, 8) for length in (512, 4096)),
        *(row("paths", test, value, path=path) for test in ("pp128", "tg8")
          for path, value in (("Fabric", 1234.5), ("reference", 0.02), ("a <peer> & \"more\"", 900.0))),
        *(row("sparsity", "tg8", 10.0, zero_rate=rate) for rate in (0.0, 0.9)),
        row("pool", "tg8", 3.0, pool_mib=128)],
        "machine": {"machine": {"cpu": "CPU", "online_cpus": 2}, "isa": {"chosen": "avx2"}}}
    drawn = plots(report)
    assert set(drawn) == {"generation", "prompts", "paths_generation", "paths_prompts", "sparsity_speed",
                          "sparsity_skips", "sparsity_energy", "pool"}, set(drawn)
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
    for wanted in ("tiny | pp512 | 512 | 1 | 612.0", "| Fabric | pp128 | 1234.50 |", "50 % of memory", "0.5 before"):
        assert wanted in page, f"{wanted!r} is not in the page"
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
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    file = output / "report.json"
    if options.plots_only:
        report = json.loads(file.read_text())
    else:
        report = measure(options)
        file.write_text(json.dumps(report, indent=1) + "\n")
    drawn = plots(report)
    for name, content in drawn.items():
        (output / f"{name}.svg").write_text(content)
    (output / "report.md").write_text(markdown(report, drawn))
    print(f"{output / 'report.md'}, {len(drawn)} plots, {file}")


if __name__ == "__main__":
    main()
