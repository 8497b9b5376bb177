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
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
SCRAPE_SECONDS = 1

# What is empty on a server without trouble: a panel may show nothing, but its query must still be accepted.
EMPTY_WHEN_ALL_IS_WELL = {"Refused requests", "Measured energy (RAPL)"}  # no counters in virtual machines


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
    with running([tern, "serve", "--port", "0", *arguments], log):
        found = wait_for("the server", 60, lambda: re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()))
        url = found.group()
        wait_for("/ready", 60, lambda: urllib.request.urlopen(url + "/ready", timeout=5).status == 200)
        yield url


def chat(url, tokens):
    return get_json(url + "/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Tell me a story about the sea."}],
        "max_tokens": tokens, "temperature": 0.8, "seed": tokens, "ignore_eos": True})


def load(url, requests):
    """Answers of `requests` concurrent chats, of different lengths."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda i: chat(url, 8 + i % 5), range(requests)))


def dashboards():
    script = DEPLOY / "grafana" / "make_dashboards.py"
    subprocess.run([sys.executable, script, "--check"], check=True)
    paths = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
    check(len(paths) >= 3, f"expected three dashboards, found {len(paths)}")
    for path in paths:
        content = json.loads(path.read_text())
        ids = [panel["id"] for panel in content["panels"]]
        check(len(ids) == len(set(ids)), f"{path.name} uses a panel id twice")
        for panel in content["panels"]:
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


def panel_queries():
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", panel["title"], target["expr"]


def alert_queries(url):
    groups = get_json(url + "/api/v1/rules")["data"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        yield rule["name"], rule["query"], rule.get("lastError", "")


def evaluate(prometheus, expression):
    """The values of an instant query, without NaN."""
    expression = expression.replace("$__rate_interval", f"{8 * SCRAPE_SECONDS}s").replace("$model_name", ".*")
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
    with tempfile.TemporaryDirectory() as folder, tern_server(tern, folder) as server:
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
            for _ in range(4):  # traffic in several scrape intervals, so that rates are not zero
                load(server, 12)
                time.sleep(1.5 * SCRAPE_SECONDS)
            wait_for("the last load in a scrape", 30, lambda: evaluate(
                prometheus, 'sum(rate(tern_generation_tokens_total[8s])) > 0'))
            count = 0
            empty = []
            for name, title, expression in panel_queries():
                count += 1
                if not evaluate(prometheus, expression) and title not in EMPTY_WHEN_ALL_IS_WELL:
                    empty.append(f"{name}: {expression}")
            check(not empty, "no data for\n  " + "\n  ".join(empty))
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


def exposition(tern):
    promtool = need("promtool")
    with tempfile.TemporaryDirectory() as folder, tern_server(tern, folder) as server:
        answers = load(server, 20)
        text = ""

        def published():
            nonlocal text
            with urllib.request.urlopen(server + "/metrics", timeout=10) as reply:
                text = reply.read().decode()
            return total(text, "tern_request_success_total") == len(answers) and total(
                text, "tern_requests_running") == 0

        wait_for("the end of all requests in /metrics", 20, published)
        usage = [answer["usage"] for answer in answers]
        expected = {
            "tern_prompt_tokens_total": sum(each["prompt_tokens"] for each in usage),
            "tern_generation_tokens_total": sum(each["completion_tokens"] for each in usage),
            "tern_time_to_first_token_seconds_count": len(answers),
            "tern_e2e_request_latency_seconds_count": len(answers),
            "tern_request_generation_tokens_sum": sum(each["completion_tokens"] for each in usage),
            "tern_request_prompt_tokens_sum": sum(each["prompt_tokens"] for each in usage),
            "vllm:generation_tokens_total": sum(each["completion_tokens"] for each in usage),
        }
        for name, value in expected.items():
            check(total(text, name) == value, f"{name} is {total(text, name)}, the load made {value}")
        posted = total(text, "tern_http_requests_total", 'route="/v1/chat/completions"')
        check(posted == len(answers), f"tern_http_requests_total counts {posted} chats of {len(answers)}")
        helped = set(re.findall(r"^# HELP (\S+) \S", text, re.M))
        typed = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
        check(typed == helped, f"without HELP: {sorted(typed - helped)}")
        done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)
        # vLLM's own names break promtool's naming rules (colons, non-base units); Tern's must not.
        complaints = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("vllm:")]
        check(not complaints, "promtool check metrics:\n" + "\n".join(complaints))
        print(f"{len(typed)} metrics, {len(expected) + 1} counters equal the load")


def main():
    commands = {"dashboards": dashboards, "rules": rules, "queries": queries, "exposition": exposition}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
