#!/usr/bin/env python3
"""Writes the Grafana dashboards of this folder: dashboards/{serving,ternary,models}.json.

A dashboard is a list of rows of panels below; this file gives each its place, its ids and the settings that all
share, so that what differs between panels is all there is to read. Run it after a change and commit both; the
test deploy_test checks that the JSON is what this file writes and runs every query against a real Prometheus.

  deploy/grafana/make_dashboards.py            writes the files
  deploy/grafana/make_dashboards.py --check    exits 1 when a file differs
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"
SERVER = 'job=~"$job",instance=~"$instance"'
MODEL = SERVER + ',model_name=~"$model_name"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRID_COLUMNS = 24


def query(expression, legend, **more):
    return {"datasource": DATASOURCE, "editorMode": "code", "expr": expression, "legendFormat": legend,
            "range": True, **more}


def panel(kind, title, description, unit, queries, options=None, **defaults):
    targets = [{"refId": chr(ord("A") + i), **each} for i, each in enumerate(queries)]
    return {"type": kind, "title": title, "description": description, "datasource": DATASOURCE,
            "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": []},
            "options": options or {}, "targets": targets}


def lines(title, description, unit, *queries, stacked=False, **defaults):
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 20 if stacked else 8, "showPoints": "never",
              "spanNulls": False, "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
    options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, description, unit, queries, options, custom=custom, min=0, **defaults)


def number(title, description, unit, expression, **defaults):
    options = {"colorMode": "value", "graphMode": "area", "textMode": "auto",
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    return panel("stat", title, description, unit, [query(expression, "__auto")], options, **defaults)


def labels(title, description, metric, label):
    """The values of a label of an info metric, in words."""
    options = {"colorMode": "none", "graphMode": "none", "textMode": "name",
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    return panel("stat", title, description, "short",
                 [query(f"count by ({label}) ({metric}{{{SERVER}}})", f"{{{{{label}}}}}")], options)


def heatmap(title, description, unit, histogram):
    expression = f"sum by (le) (increase({histogram}_bucket{{{MODEL}}}[$__rate_interval]))"
    options = {"calculate": False, "cellGap": 1, "yAxis": {"unit": unit},
               "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64}, "legend": {"show": True},
               "tooltip": {"mode": "single", "yHistogram": False}, "rowsFrame": {"layout": "auto"}}
    return panel("heatmap", title, description, unit, [query(expression, "{{le}}", format="heatmap")], options)


def quantiles(histogram, *levels):
    """A histogram's quantiles and its mean, over the chosen models."""
    rate = f"sum by (le) (rate({histogram}_bucket{{{MODEL}}}[$__rate_interval]))"
    yield from (query(f"histogram_quantile({level}, {rate})", f"p{level * 100:g}") for level in levels)
    yield query(f"sum(rate({histogram}_sum{{{MODEL}}}[$__rate_interval])) / "
                f"sum(rate({histogram}_count{{{MODEL}}}[$__rate_interval]))", "mean")


def latency(title, description, histogram):
    return lines(title, description, "s", *quantiles(histogram, 0.5, 0.9, 0.95, 0.99))


def rate(metric, legend, by=""):
    grouping = f" by ({by})" if by else ""
    return query(f"sum{grouping} (rate({metric}{{{MODEL}}}[$__rate_interval]))", legend)


def per_key(metric):
    return query(f"sum by (key) (rate({metric}{{{SERVER}}}[$__rate_interval]))", "{{key}}")


def gauge(metric, legend, by="", how="sum"):
    grouping = f" by ({by})" if by else ""
    return query(f"{how}{grouping} ({metric}{{{MODEL}}})", legend)


SERVING = [
    ("Latency", [
        latency("End-to-end request latency", "From the request's header to its last token.",
                "tern_e2e_request_latency_seconds"),
        latency("Time to first token", "From the request's header to its first token.",
                "tern_time_to_first_token_seconds"),
        latency("Inter-token latency", "Gap between two tokens of one answer, by the engine's clock.",
                "tern_inter_token_latency_seconds"),
    ]),
    ("Throughput and queue", [
        lines("Token throughput", "Prompt tokens taken in and tokens generated.", "short",
              rate("tern_prompt_tokens_total", "prompt"), rate("tern_generation_tokens_total", "generation")),
        lines("Scheduler state", "Sequences in the batch and in the queue; n choices are n sequences.", "short",
              gauge("tern_requests_running", "running"), gauge("tern_requests_waiting", "waiting")),
        lines("KV cache utilisation", "Referenced blocks over all blocks.", "percentunit",
              query(f"tern_kv_cache_usage_ratio{{{MODEL}}}", "{{model_name}}"), max=1),
    ]),
    ("Time of a request", [
        lines("Queue time", "Mean seconds before a sequence is first scheduled.", "s",
              *quantiles("tern_request_queue_time_seconds", 0.5, 0.99)),
        lines("Prefill and decode time", "Request-seconds spent per second.", "s",
              rate("tern_request_prefill_time_seconds_sum", "prefill"),
              rate("tern_request_decode_time_seconds_sum", "decode")),
        lines("Finish reason", "Answers per second by how they ended.", "short",
              rate("tern_request_success_total", "{{finished_reason}}", by="finished_reason"), stacked=True),
    ]),
    ("Requests", [
        heatmap("Prompt length", "Prompt tokens of the requests of each interval.", "short",
                "tern_request_prompt_tokens"),
        heatmap("Generation length", "Generated tokens of the answers of each interval.", "short",
                "tern_request_generation_tokens"),
        lines("Max generation tokens", "The max_tokens that requests ask for.", "short",
              *quantiles("tern_request_params_max_tokens", 0.5, 0.99)),
    ]),
    ("Pressure", [
        lines("Refused requests", "By reason; clients see 400, 429 or 503.", "short",
              rate("tern_admission_rejections_total", "{{reason}}", by="reason"), stacked=True),
        lines("Preemptions and missed queue deadlines", "Per second.", "short",
              rate("tern_preemptions_total", "preemptions"),
              rate("tern_queue_deadline_misses_total", "deadline misses")),
        lines("Prompt tokens from the cache", "Share of prompt tokens that needed no computation.", "percentunit",
              query(f"sum(rate(tern_prompt_tokens_cached_total{{{MODEL}}}[$__rate_interval])) / "
                    f"sum(rate(tern_prompt_tokens_total{{{MODEL}}}[$__rate_interval]))", "cached"), max=1),
        lines("HTTP replies", "Per second by status code.", "short",
              query(f"sum by (code) (rate(tern_http_requests_total{{{SERVER}}}[$__rate_interval]))", "{{code}}"),
              stacked=True),
    ]),
]

TERNARY = [
    ("What a token costs", [
        number("Bytes per token", "Weight and KV bytes streamed per computed token since start.", "decbytes",
               f"avg(tern_bytes_per_token{{{MODEL}}})"),
        number("Skip rate", "Share of multiply-adds with a zero weight or a zero activation.", "percentunit",
               f"avg(tern_fabric_skip_rate{{{MODEL}}})", max=1),
        number("Tokens per joule (proxy)", "Generated by the energy model of the Fabric, not measured.", "short",
               f'avg(tern_tokens_per_joule{{{MODEL},source="proxy"}})'),
        number("Lanes in use", "Mean over projections, of the modelled hardware.", "short",
               f"avg(tern_fabric_lanes_used{{{MODEL}}})"),
        labels("Kernels in use", "The instruction set that this server's kernels are written for.",
               "tern_kernels_info", "kernels"),
    ]),
    ("Fabric", [
        lines("Operations", "All multiply-adds, and those that had to be done.", "ops",
              rate("tern_fabric_ops_total", "rows x columns"),
              rate("tern_fabric_effective_ops_total", "effective")),
        lines("Fabric and host time", "Seconds per second in ternary projections and outside of them.", "s",
              rate("tern_fabric_seconds_total", "fabric"), rate("tern_host_seconds_total", "host"), stacked=True),
        lines("Bytes", "Streamed by kernels (weights, dense) and moved by the modelled device (read, write).", "Bps",
              rate("tern_fabric_bytes_total", "{{direction}}", by="direction")),
        lines("Cycles of the modelled fabric", "Lane-gated and column-skipping hardware.", "short",
              rate("tern_fabric_cycles_total", "{{model}}", by="model")),
    ]),
    ("A step", [
        lines("Where a step's time goes", "Seconds per second of the engine thread.", "s",
              rate("tern_engine_projection_seconds_total", "projections"),
              rate("tern_engine_attention_seconds_total", "attention"),
              rate("tern_engine_head_seconds_total", "head"), stacked=True),
        lines("Tokens per step", "Mean batch of a step, prompt and generated tokens together.", "short",
              query(f"sum(rate(tern_engine_step_tokens_total{{{MODEL}}}[$__rate_interval])) / "
                    f"sum(rate(tern_engine_steps_total{{{MODEL}}}[$__rate_interval]))", "tokens")),
        lines("Energy proxy", "Modelled watts; compare with a wall meter before believing them.", "watt",
              rate("tern_energy_proxy_joules_total", "proxy")),
        lines("Measured energy (RAPL)", "Watts of each processor package, all processes of the machine together; empty "
              "where the counters cannot be read.", "watt",
              query(f"sum by (package) (rate(tern_energy_rapl_joules_total{{{SERVER}}}[$__rate_interval]))",
                    "{{package}}")),
    ]),
    ("Health", [
        lines("Residency", "Products whose matrix was in a bounded pool or had to be fetched, and what made room.", "short",
              rate("tern_residency_hits_total", "hits"), rate("tern_residency_misses_total", "misses"),
              rate("tern_residency_evictions_total", "evictions"),
              rate("tern_residency_prefetches_total", "prefetches {{result}}", by="result")),
        lines("Overlap", "Share of the device's and the pool's time that nobody waited for; 0 without either.", "percentunit",
              query(f"tern_fabric_overlap_ratio{{{MODEL}}}", "{{model_name}}"), max=1),
        lines("Heartbeat age", "Seconds since the engine thread last went round.", "s",
              query(f"max by (instance) (tern_engine_heartbeat_age_seconds{{{SERVER}}})", "{{instance}}")),
    ]),
]

MODELS = [
    ("Each model", [
        lines("Generated tokens", "Per second.", "short",
              rate("tern_generation_tokens_total", "{{model_name}}", by="model_name"), stacked=True),
        lines("Prompt tokens", "Per second.", "short",
              rate("tern_prompt_tokens_total", "{{model_name}}", by="model_name"), stacked=True),
        lines("Requests running", "Sequences in the batch.", "short",
              gauge("tern_requests_running", "{{model_name}}", by="model_name"), stacked=True),
        lines("Requests waiting", "Sequences in the queue.", "short",
              gauge("tern_requests_waiting", "{{model_name}}", by="model_name"), stacked=True),
    ]),
    ("Each model's latency", [
        lines("Time to first token, p95", "From the request's header to its first token; one request in 20 waited longer.",
              "s",
              query("histogram_quantile(0.95, sum by (le, model_name) "
                    f"(rate(tern_time_to_first_token_seconds_bucket{{{MODEL}}}[$__rate_interval])))",
                    "{{model_name}}")),
        lines("Inter-token latency, p99", "Gap between two tokens of one answer; one in 100 was longer.", "s",
              query("histogram_quantile(0.99, sum by (le, model_name) "
                    f"(rate(tern_inter_token_latency_seconds_bucket{{{MODEL}}}[$__rate_interval])))",
                    "{{model_name}}")),
        lines("Model load progress", "1 when ready.", "percentunit",
              gauge("tern_model_load_progress", "{{model_name}}", by="model_name", how="max"), max=1),
    ]),
    ("Each key (needs --metrics-keys)", [
        lines("Generated tokens by key", "Per second, of requests that have ended.", "short",
              per_key("tern_key_generation_tokens_total"), stacked=True),
        lines("Prompt tokens by key", "Per second, of requests that have ended.", "short",
              per_key("tern_key_prompt_tokens_total"), stacked=True),
        lines("Requests running by key", "Requests being answered; a key's concurrent limit counts these.", "short",
              query(f"sum by (key) (tern_key_requests_running{{{SERVER}}})", "{{key}}"), stacked=True),
        lines("Requests refused by a key's limits", "Per second; clients see 429.", "short",
              query(f"sum by (key, limit) (rate(tern_key_refusals_total{{{SERVER}}}[$__rate_interval])) > 0",
                    "{{key}}: {{limit}}"),
              stacked=True),
    ]),
]


def place(rows):
    """Panels with ids and positions: a header line for each row, its panels side by side below."""
    placed = []
    top = 0
    for title, panels in rows:
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": GRID_COLUMNS, "x": 0, "y": top}})
        top += 1
        height = 4 if panels[0]["type"] == "stat" else 8
        width = GRID_COLUMNS // len(panels)
        for column, each in enumerate(panels):
            placed.append({**each, "gridPos": {"h": height, "w": width, "x": column * width, "y": top}})
        top += height
    return [{"id": number_, **each} for number_, each in enumerate(placed, 1)]


def variable(name, label, expression):
    """A drop-down list of a label's values: all of them at first."""
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": expression,
            "query": {"query": expression, "refId": name}, "includeAll": True, "multi": True, "allValue": ".+",
            "refresh": 2, "sort": 1, "hide": 0, "regex": "",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "options": []}


def variables():
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
         "current": {}, "hide": 0, "refresh": 1, "regex": "", "options": []},
        variable("job", "Job", "label_values(tern_model_ready, job)"),
        variable("instance", "Instance", 'label_values(tern_model_ready{job=~"$job"}, instance)'),
        variable("model_name", "Model", f"label_values(tern_model_ready{{{SERVER}}}, model_name)"),
    ]


def dashboard(uid, title, description, rows):
    return {"uid": uid, "title": title, "description": description, "tags": ["tern"], "editable": False,
            "schemaVersion": 38, "version": 1, "refresh": "10s", "timezone": "browser",
            "time": {"from": "now-30m", "to": "now"}, "timepicker": {}, "links": [], "annotations": {"list": []},
            "graphTooltip": 1, "templating": {"list": variables()}, "panels": place(rows)}


DASHBOARDS = {
    "serving.json": dashboard("tern-serving", "Tern: serving", "Latency, throughput, queue and cache.", SERVING),
    "ternary.json": dashboard("tern-ternary", "Tern: ternary", "What the Fabric did and what a token cost.", TERNARY),
    "models.json": dashboard("tern-models", "Tern: models", "The models and API keys of a server side by side.", MODELS),
}


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    for name, content in DASHBOARDS.items():
        text = json.dumps(content, indent=1) + "\n"
        path = FOLDER / name
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"make_dashboards.py: {', '.join(stale)} differ from what this script writes; run it.")


if __name__ == "__main__":
    main()
