#!/usr/bin/env python3
"""Measures docs/quality.md's tables and writes them between its markers.

    tools/quality/measure.py --tern build/release/tern --data ../shared/data
    tools/quality/measure.py --only formats,activations --check     prints, changes nothing

--data holds models/ (the demo model's float copy and texts) and eval/. Plain Python; every figure
comes from `tern quantize | perplexity | eval --json`; the same binary and data give the same
figures on every machine.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "quality.md"
BUNDLED = ROOT / "models" / "tern-demo-7m-i2_s.gguf"

TERNARY_TYPES = ["I2_S", "TQ1_0", "TQ2_0", "Q2_0", "PQ2_0", "PTQ1_0", "IQ1_BN", "IQ2_BN",
                 "IQ2_BN_R4"]
# By bits per weight.
BLOCK_TYPES = ["Q8_0", "Q6_K", "Q5_1", "Q5_K", "Q5_0", "Q4_1", "Q4_K", "IQ4_NL", "Q4_0", "IQ4_XS",
               "Q3_K", "Q2_K"]
CALIBRATIONS = ["absmean", "twn", "percentile", "mean-std", "absmax", "minmax"]


class Bench:
    def __init__(self, tern, data, scratch, eval_limit):
        self.tern = tern
        self.data = data
        self.scratch = scratch
        self.eval_limit = eval_limit
        self.text = data / "models" / "shakespeare40k.txt"
        self.f16 = data / "models" / "tern-demo-7m-f16.gguf"
        self.base = None

    def run(self, *arguments):
        done = subprocess.run([self.tern, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"tern {' '.join(map(str, arguments))} failed: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def quantize(self, source, name, *options):
        path = self.scratch / name
        report = self.run("quantize", source, path, "--force", "--json", *options)[0]
        return path, report

    def compare(self, model, *options):
        """Perplexity of the text and divergence from the bundled model as it was trained."""
        if self.base is None:
            self.base = self.scratch / "base.logits"
            self.run("perplexity", "--model", BUNDLED, "--file", self.text, "--save-logits",
                     self.base, "--json")
        return self.run("perplexity", "--model", model, "--kl", self.base, "--json", *options)[0]


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def quality_cells(result):
    change = result["perplexity"] / result["base_perplexity"] - 1
    # Saved predictions are rounded: below this the two are the same.
    kl = abs(result["kl"]["mean"])
    return [f"{result['perplexity']:.3f}", f"{100 * change:+.3f} %",
            "0" if kl < 1e-6 else f"{kl:.5f}",
            "0" if result["kl_p99"] < 1e-5 else f"{result['kl_p99']:.4f}",
            f"{100 * result['same_top']['mean']:.2f} %"]


QUALITY = ["perplexity", "change", "mean KL", "99 % KL", "same first token"]


def smaller(report, f16_bytes):
    return f"{f16_bytes / report['total']['bytes']:.2f}×"


def tensor_bytes(bench):
    return bench.quantize(BUNDLED, "f16.gguf", "--type", "F16")[1]["total"]["bytes"]


def formats(bench):
    f16_bytes = tensor_bytes(bench)
    rows = []
    for kind in TERNARY_TYPES:
        path, report = bench.quantize(BUNDLED, "m.gguf", "--type", kind)
        projections = [t for t in report["tensors"] if t["name"].startswith("blk.")
                       and t["rows"] > 1]
        bits = 8 * sum(t["bytes"] for t in projections) / sum(
            t["rows"] * t["cols"] for t in projections)
        rows.append([kind, f"{bits:.3f}", f"{report['total']['bytes']:,}",
                     smaller(report, f16_bytes), *quality_cells(bench.compare(path))])
    return table(["type", "bits per projection weight", "bytes of all tensors", "smaller than F16",
                  *QUALITY], rows)


def activations(bench):
    rows = []
    for label, model, mode in [("I2_S, int8 per token (as trained)", BUNDLED, "token"),
                               ("I2_S, int8 per block of 32", BUNDLED, "block"),
                               ("I2_S, float", BUNDLED, "float"),
                               ("F16 file of the same values, float", bench.f16, "auto")]:
        rows.append([label, *quality_cells(bench.compare(model, "--activation-quant", mode))])
    return table(["weights and activations", *QUALITY], rows)


def kv_types(bench):
    rows = []
    for kind in ["f32", "f16", "q8", "t2"]:
        done = subprocess.run([bench.tern, "perplexity", "--file", "/dev/null", "--kv-type", kind],
                              capture_output=True, text=True)
        if done.returncode == 2:  # this build does not know the type
            continue
        rows.append([kind, *quality_cells(bench.compare(BUNDLED, "--kv-type", kind))])
    return table(["KV cache", *QUALITY], rows)


def calibrations(bench):
    f16_bytes = tensor_bytes(bench)
    rows = []

    def add(label, *options):
        path, report = bench.quantize(BUNDLED, "m.gguf", "--type", "TQ2_0", *options)
        tensor = next(t for t in report["tensors"] if t["name"] == "token_embd.weight")
        error = tensor.get("relative_error")
        zeros = tensor.get("zero_rate")
        rows.append([label, f"{zeros * 100:.1f} %" if tensor["type"] in TERNARY_TYPES else "",
                     "" if error is None else f"{error:.4f}",
                     "" if error is None else f"{tensor['cosine']:.4f}",
                     smaller(report, f16_bytes), *quality_cells(bench.compare(path))])

    add("F16 (kept)")
    for kind in BLOCK_TYPES:
        add(kind, "--embeddings", kind)
    for rule in CALIBRATIONS:
        add(f"TQ2_0, {rule}", "--embeddings", "ternary", "--calibration", rule)
    for rule in ["absmean", "absmax", "minmax"]:
        add(f"TQ2_0, {rule}, fitted scale", "--embeddings", "ternary", "--calibration", rule,
            "--fit-scale")
    add("TQ2_0, twn, one scale per tensor", "--embeddings", "ternary", "--calibration", "twn",
        "--granularity", "tensor")
    add("Q2_0, twn, groups of 64", "--embeddings", "Q2_0", "--calibration", "twn")
    return table(["embedding and head", "zeros", "relative error", "cosine", "file smaller than F16",
                  *QUALITY], rows)


def blocks(bench):
    f16_bytes = tensor_bytes(bench)
    rows = []
    for kind in BLOCK_TYPES:
        path, report = bench.quantize(BUNDLED, "m.gguf", "--type", kind)
        rows.append([kind, f"{report['total']['relative_error']:.4f}", smaller(report, f16_bytes),
                     *quality_cells(bench.compare(path))])
    return table(["projections", "relative error", "file smaller than F16", *QUALITY], rows)


def fabric_cells(bench, path, options):
    """Planes, PT-5 and resident bits per weight, density and estimated error of the projections."""
    placements = bench.run("inspect", path, "--json", *options)[0]["run"]["placements"]
    layers = [p for p in placements if p["name"].startswith("blk.") and "reason" in p]
    planes = [p for p in layers if p["runs_on"] == "fabric"]
    shapes = {t["name"]: t["shape"] for t in bench.run("inspect", path, "--json",
                                                       "--no-load")[0]["tensors"]}
    weights = sum(shapes[p["name"]][0] * shapes[p["name"]][1] for p in layers)
    resident = f"{8 * sum(p['resident_bytes'] for p in layers) / weights:.2f}"
    if not planes:
        return ["none", "", resident, "", ""]
    counts = sorted({p["frames"] for p in planes})
    trits = sum(p["frames"] * shapes[p["name"]][0] * shapes[p["name"]][1] for p in planes)
    density = sum(p["density"] * p["frames"] * shapes[p["name"]][0] * shapes[p["name"]][1]
                  for p in planes) / trits
    worst = max(p["estimated_error"] for p in planes)
    packed = f"{8 * sum(p['frame_bytes'] for p in planes) / weights:.2f}"
    return [" or ".join(map(str, counts)), packed, resident, f"{100 * density:.1f} %",
            f"{worst:.4f}"]


def planes(bench):
    rotated = bench.scratch / "rotated.gguf"
    subprocess.run([sys.executable, ROOT / "tools" / "quality" / "rotate.py", bench.f16, rotated],
                   check=True)
    exact = {"Q4_0": 3, "Q4_K": 3, "Q5_K": 4, "Q6_K": 4, "Q8_0": 6}
    native = bench.scratch / "native.logits"
    rows = []
    for kind, most in exact.items():
        path, _ = bench.quantize(rotated, "m.gguf", "--type", kind)
        bench.run("perplexity", "--model", path, "--file", bench.text, "--save-logits", native,
                  "--json")
        runs = [("", [])] + [("", ["--fabric-planes", str(n)]) for n in range(1, most + 1)]
        runs += [(profile, ["--fabric-profile", profile]) for profile in ("fast", "balanced")]
        for profile, options in runs:
            result = bench.run("perplexity", "--model", path, "--kl", native, "--json", *options)[0]
            rows.append([kind, profile, *fabric_cells(bench, path, options),
                         *quality_cells(result)])
    return table(["projections", "profile", "planes", "bits per weight in PT-5", "resident",
                  "density", "largest estimated error", *QUALITY], rows)


def float_copies(bench):
    """Q6_K files of the demo model's copies whose weights are no trits."""
    for label, script in [("rotated", "rotate.py"), ("noisy", "noise.py")]:
        copy = bench.scratch / f"{label}.gguf"
        subprocess.run([sys.executable, ROOT / "tools" / "quality" / script, bench.f16, copy],
                       check=True)
        yield label, bench.quantize(copy, f"{label}-q6_k.gguf", "--type", "Q6_K")[0]


def fabric_planes(bench, path, *options):
    """(estimated error, weights, planes) of every matrix that the Fabric gets."""
    report = bench.run("inspect", path, "--json", *options)[0]
    sizes = {t["name"]: t["shape"][0] * t["shape"][1] for t in report["tensors"]
             if len(t["shape"]) == 2}
    return [(p["estimated_error"], sizes[p["name"]], p["frames"])
            for p in report["run"]["placements"] if p["runs_on"] == "fabric"]


def threshold(matrices, share):
    """The error that so many of the weights stay within."""
    left = share * sum(weights for _, weights, _ in matrices)
    for error, weights, _ in sorted(matrices):
        left -= weights
        if left <= 0:
            return error * (1 + 1e-9)
    return 1


# Positions that are scored in each run.
CALIBRATION_CHUNKS = 10


def plane_calibration(bench):
    text = bench.scratch / "calibration.txt"
    text.write_bytes((bench.data / "text" / "tinyshakespeare.txt").read_bytes()[-60000:])
    rows = []
    for label, path in float_copies(bench):
        importance = bench.scratch / "importance.gguf"
        native = bench.scratch / "native.logits"
        bench.run("calibrate", path, "--file", text, "-o", importance)
        bench.run("perplexity", "--model", path, "--file", bench.text, "--save-logits", native,
                  "--chunks", CALIBRATION_CHUNKS, "--json")
        for share in (0.75, 0.5, 0.25):
            for basis, options in [("weights", []),
                                   ("text", ["--fabric-calibration", importance])]:
                error = threshold(fabric_planes(bench, path, "--fabric-planes", 2, *options), share)
                options = ["--fabric-planes", "auto", "--fabric-max-error", f"{error:.17g}",
                           *options]
                matrices = fabric_planes(bench, path, *options)
                mean = sum(weights * planes for _, weights, planes in matrices) / sum(
                    weights for _, weights, _ in matrices)
                result = bench.run("perplexity", "--model", path, "--kl", native, "--chunks",
                                   CALIBRATION_CHUNKS, "--json", *options)[0]
                rows.append([label, f"{mean:.2f}", basis, f"{error:.4f}", *quality_cells(result)])
    return table(["copy", "planes on average", "error of", "at most", *QUALITY], rows)


def recalibration(bench):
    rows = []
    for rule in CALIBRATIONS:
        path, report = bench.quantize(bench.f16, "m.gguf", "--type", "I2_S", "--recalibrate",
                                      "--calibration", rule)
        total = report["total"]
        rows.append([rule, f"{total['ternary_zero_rate'] * 100:.2f} %",
                     f"{total['relative_error']:.4f}", *quality_cells(bench.compare(path))])
    path, report = bench.quantize(bench.f16, "m.gguf", "--type", "I2_S")
    rows.append(["none: recognised as ternary",
                 f"{report['total']['ternary_zero_rate'] * 100:.2f} %",
                 f"{report['total']['relative_error']:.4f}", *quality_cells(bench.compare(path))])
    return table(["calibration of the F16 copy", "zeros", "relative error", *QUALITY], rows)


def accuracy(bench):
    folder = bench.data / "eval"
    tasks = [folder / f"{name}.jsonl" for name in ["lambada_openai", "arc_easy", "piqa", "copa",
                                                   "winograd_wsc"]]
    extra = []
    with tempfile.TemporaryDirectory() as blimp:
        subprocess.run(["tar", "-C", blimp, "-xf", folder / "blimp.tar.xz"], check=True)
        extra.append(blimp)
        ternary, _ = bench.quantize(BUNDLED, "t.gguf", "--type", "TQ2_0", "--embeddings", "ternary",
                                    "--calibration", "twn")
        six, _ = bench.quantize(BUNDLED, "q6.gguf", "--type", "TQ2_0", "--embeddings", "Q6_K")
        columns = [("I2_S", BUNDLED), ("F16 copy, float", bench.f16),
                   ("TQ2_0, Q6_K head", six), ("TQ2_0, ternary head", ternary)]
        cells, order = {}, []
        for label, model in columns:
            results = bench.run("eval", *tasks, "--model", model, "--limit", bench.eval_limit,
                                "--json")
            blimp_results = bench.run("eval", blimp, "--model", model, "--limit",
                                      max(1, bench.eval_limit // 10), "--json")
            blimp_results[-1]["task"] = "BLiMP"
            for result in [*results, blimp_results[-1]]:
                key = (result["task"], result["questions"])
                if key not in cells:
                    cells[key] = {}
                    order.append(key)
                text = f"{100 * result['acc']:.1f} ± {100 * result['acc_stderr']:.1f} %"
                if "acc_norm" in result:
                    text += f" ({100 * result['acc_norm']:.1f})"
                cells[key][label] = text
    rows = [[f"{task}, {questions}", *[cells[(task, questions)][label] for label, _ in columns]]
            for task, questions in order]
    return table(["test, questions", *[label for label, _ in columns]], rows)


SECTIONS = {"formats": formats, "activations": activations, "kv": kv_types,
            "calibrations": calibrations, "blocks": blocks, "planes": planes,
            "plane-calibration": plane_calibration, "recalibration": recalibration,
            "accuracy": accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tern", type=pathlib.Path, default=ROOT / "build" / "release" / "tern")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas")
    parser.add_argument("--eval-limit", type=int, default=200, help="questions per test")
    parser.add_argument("--check", action="store_true", help="print, do not change the page")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments.tern.resolve(), arguments.data.resolve(), pathlib.Path(scratch),
                      arguments.eval_limit)
        for name in arguments.only.split(","):
            text = SECTIONS[name](bench)
            print(f"## {name}\n\n{text}\n", flush=True)
            pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
            assert pattern.search(page), f"{PAGE} has no marker for {name}"
            page = pattern.sub(lambda found: found.group(1) + text + found.group(2), page)
            if not arguments.check:
                PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
