"""What bench/report.py measured as plots and a Markdown page."""

from html import escape

from report_drawing import bars, lines


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
        return ["`ppN` behind M tokens: the N tokens of each sequence that follow M others. Where a shape has fewer lines "
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
