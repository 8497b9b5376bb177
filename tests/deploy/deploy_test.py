#!/usr/bin/env python3
"""The files under deploy/: what they say about a server is true of the server.

  deploy_test.py dashboards        the dashboards are what make_dashboards.py writes
  deploy_test.py rules             promtool accepts the rules and its test cases pass
  deploy_test.py queries TERN      a real Prometheus scrapes a loaded server; every query of every dashboard and
                                   every alert's expression is evaluated there, and each panel gets data
  deploy_test.py exposition TERN   promtool finds nothing to complain about in /metrics, and the counters equal
                                   what the scripted load sent

Exit status 77 with a reason: Prometheus is not installed.
"""

import concurrent.futures
import contextlib
import http.client
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
SCRAPE_SECONDS = 1
KEYS = "alice sk-a\nbob sk-b rpm=1 concurrent=1\n"
TOO_LONG = {"messages": [{"role": "user", "content": "word " * 4000}]}

# What may be empty: a panel shows nothing, but its query must still be accepted.
MAY_BE_EMPTY = {"Measured energy (RAPL)"}  # no counters in virtual machines


def need(program):
    # Debian has haproxy where only root looks.
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        print(f"{program} is not installed")
        sys.exit(77)
    return path


def check(condition, message):
    if not condition:
        sys.exit(f"deploy_test.py: {message}")


def get_json(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


def wait_for(what, seconds, condition):
    """Polls until the condition gives something true, which it returns."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if found := condition():
                return found
        time.sleep(0.2)
    sys.exit(f"deploy_test.py: waited {seconds} s for {what}")


@contextlib.contextmanager
def running(command, log):
    with open(log, "w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def tern_server(tern, folder, *arguments):
    log = pathlib.Path(folder, "tern.log")
    with running([tern, "serve", "--port", "0", *map(str, arguments)], log):
        found = wait_for("the server", 60, lambda: re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()))
        url = found.group()
        wait_for("/ready", 60, lambda: urllib.request.urlopen(url + "/ready", timeout=5).status == 200)
        yield url


def keyed_server(tern, folder, *arguments):
    keys = pathlib.Path(folder, "keys")
    keys.write_text(KEYS)
    return tern_server(tern, folder, "--api-key-file", keys, "--metrics-keys", *arguments)


def post(url, body, key):
    """(status, reply) of a request that may be refused."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def chat(url, tokens):
    return post(url + "/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Tell me a story about the sea."}],
        "max_tokens": tokens, "temperature": 0.8, "seed": tokens, "ignore_eos": True}, "sk-a")


def load(url, requests):
    """Answers of `requests` concurrent chats, of different lengths."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda i: chat(url, 8 + i % 5), range(requests)))


@contextlib.contextmanager
def traffic(url):
    """Requests all the while, good ones and refused ones, so that rates are never zero however slow the machine."""
    stop = threading.Event()

    def send():
        while not stop.is_set():
            load(url, 12)
            refused = [post(url + "/v1/chat/completions", TOO_LONG, key)[0] for key in ("sk-a", "sk-b", "sk-b")]
            check(refused[0] == 400 and refused[2] == 429, f"bad requests were answered with {refused}")
            stop.wait(SCRAPE_SECONDS / 2)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send)
        try:
            yield
        finally:
            stop.set()
        sent.result()


def dashboards():
    script = DEPLOY / "grafana" / "make_dashboards.py"
    subprocess.run([sys.executable, script, "--check"], check=True)
    paths = dashboard_files()
    check(len(paths) >= 3, f"expected three dashboards, found {len(paths)}")
    for path in paths:
        content = json.loads(path.read_text())
        ids = [panel["id"] for panel in content["panels"]]
        check(len(ids) == len(set(ids)), f"{path.name} uses a panel id twice")
        for panel in content["panels"]:
            check(panel["type"] == "row" or panel["description"], f"{path.name}: \"{panel['title']}\" explains nothing")
            place = panel["gridPos"]
            check(place["x"] + place["w"] <= 24, f"{path.name}: \"{panel['title']}\" leaves the grid")
    print(f"{len(paths)} dashboards are up to date")


def rules():
    promtool = need("promtool")
    folder = DEPLOY / "prometheus"
    subprocess.run([promtool, "check", "config", "prometheus.yml"], cwd=folder, check=True)
    subprocess.run([promtool, "test", "rules", "tern_rules_test.yml"], cwd=folder, check=True)
    text = (folder / "tern_rules.yml").read_text()
    tested = (folder / "tern_rules_test.yml").read_text()
    for alert in re.findall(r"- alert: (\w+)", text):
        check(f"alertname: {alert}" in tested, f"alert {alert} has no test case")


def dashboard_files():
    return sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def panel_queries():
    for path in dashboard_files():
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", panel["title"], target["expr"]


def variable_queries():
    """(name, series, label) of each drop-down list."""
    for path in dashboard_files():
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
                yield f"{path.stem}: {variable['name']}", series, label


def alert_queries(url):
    groups = get_json(url + "/api/v1/rules")["data"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        yield rule["name"], rule["query"], rule.get("lastError", "")


def all_chosen(expression):
    """The expression as Grafana sends it with all of every drop-down list chosen."""
    return re.sub(r'"\$(job|instance|model_name)"', '".+"', expression)


def choices(prometheus, series, label):
    query = urllib.parse.urlencode({"match[]": all_chosen(series)})
    return get_json(f"{prometheus}/api/v1/label/{label}/values?{query}")["data"]


def evaluate(prometheus, expression):
    """The values of an instant query, without NaN."""
    expression = all_chosen(expression).replace("$__rate_interval", f"{8 * SCRAPE_SECONDS}s")
    check("$" not in expression, f"{expression} has a variable that this test does not know")
    query = urllib.parse.urlencode({"query": expression})
    try:
        reply = get_json(f"{prometheus}/api/v1/query?{query}")
    except urllib.error.HTTPError as error:
        sys.exit(f"deploy_test.py: {expression}\n{error.read().decode()}")
    values = [float(series["value"][1]) for series in reply["data"]["result"]]
    return [value for value in values if not math.isnan(value)]


def free_port():
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def queries(tern):
    program = need("prometheus")
    with tempfile.TemporaryDirectory() as folder, keyed_server(tern, folder) as server:
        config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        config = config.replace("tern:8080", server.removeprefix("http://"))
        config = re.sub(r"(scrape|evaluation)_interval: \w+", rf"\1_interval: {SCRAPE_SECONDS}s", config)
        pathlib.Path(folder, "prometheus.yml").write_text(config)
        shutil.copy(DEPLOY / "prometheus" / "tern_rules.yml", folder)
        prometheus = f"http://127.0.0.1:{free_port()}"
        command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
                   f"--web.listen-address={prometheus.removeprefix('http://')}"]
        with running(command, pathlib.Path(folder, "prometheus.log")):
            wait_for("Prometheus", 60,
                     lambda: urllib.request.urlopen(prometheus + "/-/ready", timeout=5).status == 200)
            wait_for("a scrape", 60, lambda: evaluate(prometheus, "tern_model_ready == 1"))
            for name, series, label in variable_queries():
                check(len(choices(prometheus, series, label)) == 1, f"{name} offers nothing to choose")
            count = 0
            with traffic(server):
                for name, title, expression in panel_queries():
                    count += 1
                    if title in MAY_BE_EMPTY:
                        evaluate(prometheus, expression)
                    else:
                        wait_for(f"data for {name}: {expression}", 60, lambda: evaluate(prometheus, expression))
            alerts = list(alert_queries(prometheus))
            for name, expression, error in alerts:
                check(not error, f"alert {name}: {error}")
                evaluate(prometheus, expression)
            check(count >= 40 and len(alerts) >= 10, f"only {count} queries and {len(alerts)} alerts were found")
            print(f"{count} panel queries and {len(alerts)} alert expressions evaluated")


def samples(text):
    """{(name, labels text): value} of an exposition."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)", line):
            found[match[1], match[2] or ""] = float(match[3])
    return found


def total(text, name, wanted=""):
    return sum(value for (sample, labels), value in samples(text).items() if sample == name and wanted in labels)


# Counters that the scripted load says nothing about, and the tests that compare them with something.
COUNTED_ELSEWHERE = {
    "tern_engine_step_seconds_total", "tern_engine_projection_seconds_total",  # times: below, against each other
    "tern_engine_attention_seconds_total", "tern_engine_head_seconds_total", "tern_spec_draft_seconds_total",
    "tern_engine_steps_total",  # tern_iteration_tokens_count
    "tern_kv_bytes_read_total", "tern_head_screened_positions_total", "tern_head_refined_rows_total",  # tests/engine
    "tern_head_screen_fallbacks_total",
    "tern_fabric_effective_ops_total", "tern_fabric_cycles_total", "tern_fabric_bytes_total",  # tests/fabric
    "tern_fabric_broadcasts_total", "tern_fabric_cost_total",
    "tern_energy_rapl_joules_total",  # tests/server
    "process_cpu_seconds_total",
}


class ScriptedLoad:
    """Answered chats of alice, and what they must have left in the counters."""

    def __init__(self, url):
        self.url = url + "/v1/chat/completions"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            self.answers = list(pool.map(self.ask, range(24)))

    def ask(self, number):
        status, answer = post(self.url, {
            "messages": [{"role": "user", "content": f"Tell me a story about the sea. {number % 7}"}],
            "max_tokens": 8 + number % 5, "temperature": 0.8, "seed": number, "ignore_eos": number % 3 > 0,
            "tern": {"usage": True}}, "sk-a")
        check(status == 200, f"a chat was answered with {status}: {answer}")
        return answer

    def tokens(self, field):
        return sum(answer["usage"][field] for answer in self.answers)

    def cost(self, field):
        return sum(answer["usage"]["tern"][field] for answer in self.answers)

    def finished(self, reason):
        return sum(choice["finish_reason"] == reason for answer in self.answers for choice in answer["choices"])

    def counters(self, ternary_shapes):
        """{(name, part of its labels): value}"""
        prompt, generated, count = self.tokens("prompt_tokens"), self.tokens("completion_tokens"), len(self.answers)
        cached = sum(answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in self.answers)
        computed = prompt - cached + generated - count  # nothing is computed behind an answer's last token
        expected = {
            "tern_prompt_tokens_total": prompt,
            "tern_generation_tokens_total": generated,
            "tern_prompt_tokens_cached_total": cached,
            "tern_prefix_cache_queries_total": prompt,
            "tern_prefix_cache_hits_total": cached,
            "tern_engine_step_tokens_total": computed,
            "tern_iteration_tokens_sum": computed,
            "tern_fabric_projections_total": computed * len(ternary_shapes),
            "tern_fabric_ops_total": computed * sum(math.prod(shape) for shape in ternary_shapes),
            "tern_time_to_first_token_seconds_count": count,
            "tern_e2e_request_latency_seconds_count": count,
            "tern_inter_token_latency_seconds_count": generated - count,
            "tern_request_time_per_output_token_seconds_count": count,
            "tern_request_queue_time_seconds_count": count,
            "tern_request_prefill_time_seconds_count": count,
            "tern_request_decode_time_seconds_count": count,
            "tern_request_inference_time_seconds_count": count,
            "tern_request_generation_tokens_sum": generated,
            "tern_request_prompt_tokens_sum": prompt,
            "tern_request_params_n_sum": count,
            "tern_request_params_max_tokens_sum": sum(8 + number % 5 for number in range(count)),
            "tern_energy_proxy_joules_total": self.cost("energy_proxy_joules"),
            "tern_fabric_seconds_total": self.cost("fabric_seconds"),
            "tern_host_seconds_total": self.cost("host_seconds"),
        }
        # What a machine without trouble never counts.
        for name in ("prefix_cache_evictions", "preemptions", "swapped_preemptions", "queue_deadline_misses",
                     "spec_drafts", "spec_draft_tokens", "spec_accepted_tokens", "slow_readers_cut", "model_unloads",
                     "fabric_faults", "fabric_host_fallbacks"):
            expected[f"tern_{name}_total"] = 0
        return {(name, ""): value for name, value in expected.items()} | {
            ("tern_request_success_total", '"stop"'): self.finished("stop"),
            ("tern_request_success_total", '"length"'): self.finished("length"),
            ("tern_request_success_total", '"abort"'): 0,
            ("tern_model_loads_total", '"ok"'): 1,
            ("tern_model_loads_total", '"failed"'): 0,
            ("tern_http_requests_total", 'code="200",route="/v1/chat/completions"'): count,
            ("tern_key_requests_total", '"alice"'): count,
            ("tern_key_prompt_tokens_total", '"alice"'): prompt,
            ("tern_key_generation_tokens_total", '"alice"'): generated,
            ("tern_key_requests_total", '"bob"'): 0,
        }


def misuse(server):
    """Requests that are refused or abandoned, and the counters that must tell so."""
    url = server + "/v1/chat/completions"
    expected = [400, 400, 401, 400]
    bodies = [({"messages": "?"}, "sk-a"), (TOO_LONG, "sk-a"), ({"messages": []}, "sk-wrong"), (TOO_LONG, "sk-a")]
    found = [post(url, body, key)[0] for body, key in bodies]
    check(found == expected, f"bad requests were answered with {found}, not {expected}")
    # bob streams, asks for more than his key may at once, and goes away.
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=120)
    body = {"messages": [{"role": "user", "content": "Sing."}], "max_tokens": 900, "ignore_eos": True, "n": 64,
            "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body),
                       {"Content-Type": "application/json", "Authorization": "Bearer sk-b"})
    stream = connection.getresponse()
    check(stream.readline(), "the stream has no first line")
    status, _ = post(url, {"messages": [{"role": "user", "content": "Hi"}]}, "sk-b")
    check(status == 429, f"a key's second request at once was answered with {status}")
    stream.close()
    connection.close()
    route = ',route="/v1/chat/completions"'
    return {
        ("tern_http_requests_total", 'code="400"' + route): 3,
        ("tern_http_requests_total", 'code="401"' + route): 1,
        ("tern_http_requests_total", 'code="429"' + route): 1,
        ("tern_admission_rejections_total", '"prompt_too_long"'): 2,
        ("tern_key_requests_total", '"bob"'): 1,
        ("tern_key_refusals_total", 'key="bob",limit="concurrent"'): 1,
        ("tern_key_refusals_total", '"requests"'): 0,
        ("tern_key_requests_running", ""): 0,
        ("tern_requests_running", ""): 0,
        ("tern_kv_blocks_used", ""): 0,
    }


def differences(text, expected):
    """What is not as expected, relative to 1e-6: sums of seconds are rounded."""
    found = {sample: total(text, *sample) for sample in expected}
    return [f"{' '.join(sample)} is {found[sample]}, the load made {value}" for sample, value in expected.items()
            if not math.isclose(found[sample], value, rel_tol=1e-6)]


def wait_for_counters(server, expected):
    """/metrics once it says what is expected: figures are published after the step whose tokens a client may have."""
    text = ""
    for _ in range(150):
        with urllib.request.urlopen(server + "/metrics", timeout=10) as reply:
            text = reply.read().decode()
        if not differences(text, expected):
            return text
        time.sleep(0.2)
    sys.exit("deploy_test.py: " + "\n  ".join(differences(text, expected)))


def check_times(text):
    """The parts of a step's time are no longer than the step."""
    parts = sum(total(text, f"tern_engine_{part}_seconds_total") for part in ("projection", "attention", "head"))
    whole = total(text, "tern_engine_step_seconds_total")
    check(0 < parts <= whole, f"parts of steps took {parts} s, the steps {whole} s")
    check(total(text, "tern_engine_steps_total") == total(text, "tern_iteration_tokens_count"), "steps are miscounted")


def check_aliases(text):
    """What vLLM's names say is what Tern's say."""
    by_name = {}
    for (name, labels), value in samples(text).items():
        by_name.setdefault(name, {})[labels] = value
    renamed = {"num_requests_running": "requests_running", "num_requests_waiting": "requests_waiting",
               "kv_cache_usage_perc": "kv_cache_usage_ratio", "num_preemptions_total": "preemptions_total"}
    aliases = [name for name in by_name if name.startswith("vllm:") and name != "vllm:cache_config_info"]
    for alias in aliases:
        name = alias.removeprefix("vllm:").replace("spec_decode_num_", "spec_")
        name = name.replace("iteration_tokens_total", "iteration_tokens")
        check(by_name.get("tern_" + renamed.get(name, name)) == by_name[alias], f"{alias} differs from Tern's")
    check(len(aliases) > 40, f"only {len(aliases)} series of vLLM's names")


def exposition(tern):
    promtool = need("promtool")
    model = ROOT / "models" / "tern-demo-7m-i2_s.gguf"
    inspected = json.loads(subprocess.run([tern, "inspect", model, "--json"], check=True, capture_output=True).stdout)
    ternary = {each["name"] for each in inspected["run"]["placements"] if each["file_type"] == "I2_S"}
    shapes = [each["shape"] for each in inspected["tensors"] if each["name"] in ternary]
    with tempfile.TemporaryDirectory() as folder, keyed_server(tern, folder, "--model", model) as server:
        expected = ScriptedLoad(server).counters(shapes)
        text = wait_for_counters(server, expected)
        check_times(text)
        check_aliases(text)
        after = misuse(server)
        text = wait_for_counters(server, after)
    aborted = total(text, "tern_request_success_total", '"abort"')
    check(0 < aborted <= 64, f"of 64 choices of a client that went away {aborted} were aborted")
    counters = {name for name, kind in re.findall(r"^# TYPE (\S+) (\w+)", text, re.M)
                if kind == "counter" and not name.startswith("vllm:")}
    compared = {name for name, _ in expected | after} | COUNTED_ELSEWHERE
    # The rest counts what this load does not cause: pools that are too small, devices behind queues, profiles.
    strays = [name for name in sorted(counters - compared) if total(text, name) != 0]
    check(not strays, f"nothing compares {strays}")
    helped = set(re.findall(r"^# HELP (\S+) \S", text, re.M))
    typed = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    check(typed == helped, f"without HELP: {sorted(typed - helped)}")
    done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)
    # vLLM's own names break promtool's naming rules (colons, non-base units); Tern's must not.
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("vllm:")]
    check(not complaints, "promtool check metrics:\n" + "\n".join(complaints))
    print(f"{len(typed)} metrics, {len(expected) + len(after)} figures equal the load")


def main():
    commands = {"dashboards": dashboards, "rules": rules, "queries": queries, "exposition": exposition}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
