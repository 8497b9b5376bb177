#!/usr/bin/env python3
"""Three replicas behind HAProxy with deploy/haproxy/haproxy.cfg.

  scaling_test.py TERN               checks, and prints what they measured
  scaling_test.py TERN throughput    tokens per second of one, two and three replicas

Checks that requests with the same beginning meet the replica that has it cached more often than in turn, and that
a replica that is killed under load fails no request that it had not begun to answer; prints the figures of
docs/scaling.md. Exit status 77 with a reason: HAProxy is not installed.
"""

import concurrent.futures
import contextlib
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from deploy_test import DEPLOY, check, free_port, need, running, total, wait_for

REPLICAS = 3
APPLICATIONS = 24  # each with a system prompt of its own
REQUESTS = 10      # of each application


def system_prompt(application):
    words = random.Random(application)
    return " ".join(words.choice(["a", "big", "dog", "sees", "the", "red", "boat", "and", "sings"])
                    for _ in range(150))


def ask(url, application, request, tokens=4):
    body = {"messages": [{"role": "system", "content": system_prompt(application)},
                         {"role": "user", "content": f"Question {request}?"}],
            "max_tokens": tokens, "ignore_eos": True}
    post = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(),
                                  {"Content-Type": "application/json"})
    with urllib.request.urlopen(post, timeout=120) as reply:
        return json.load(reply)["usage"]


class Replicas:
    def __init__(self, tern, folder, stack, count=REPLICAS):
        self.urls, self.processes = [], []
        for index in range(count):
            log = pathlib.Path(folder, f"tern-{index}.log")
            command = [tern, "serve", "--port", "0", "--threads", "1"]
            self.processes.append(stack.enter_context(running(command, log)))
            found = wait_for("a replica", 60, lambda: re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()))
            self.urls.append(found.group())
        for url in self.urls:
            wait_for("/ready", 60, lambda: urllib.request.urlopen(url + "/ready", timeout=5).status == 200)

    def metric(self, name):
        sums = 0
        for url in self.urls:
            with urllib.request.urlopen(url + "/metrics", timeout=10) as reply:
                sums += total(reply.read().decode(), name)
        return sums


def proxy(folder, replicas, stack, affine):
    """HAProxy with the committed configuration on free ports; not affine: the same, in turn."""
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    port = free_port()
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    for index, url in enumerate(replicas.urls, 1):
        text = text.replace(f"127.0.0.1:{8080 + index}", url.removeprefix("http://"))
    for index in range(len(replicas.urls), REPLICAS):
        text = re.sub(rf"^ *server tern-{index + 1} .*$", "", text, flags=re.M)
    if not affine:
        text = re.sub(r"^ *(balance hash|hash-).*$", "", text, flags=re.M)
    config = pathlib.Path(folder, f"haproxy-{affine}.cfg")
    config.write_text(text)
    stack.enter_context(running([need("haproxy"), "-db", "-f", str(config)],
                                pathlib.Path(folder, f"haproxy-{affine}.log")))
    url = f"http://127.0.0.1:{port}"
    wait_for("HAProxy", 30, lambda: urllib.request.urlopen(url + "/ready", timeout=5).status == 200)
    return url


def hit_rate(tern, affine):
    """Share of prompt tokens that came from a cache, and tokens per second."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        replicas = Replicas(tern, folder, stack)
        url = proxy(folder, replicas, stack, affine)
        order = [(a, r) for r in range(REQUESTS) for a in range(APPLICATIONS)]
        random.Random(1).shuffle(order)
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            usage = list(pool.map(lambda each: ask(url, *each), order))
        seconds = time.monotonic() - begin
        prompt = sum(each["prompt_tokens"] for each in usage)
        cached = sum(each["prompt_tokens_details"]["cached_tokens"] for each in usage)
        check(replicas.metric("tern_prompt_tokens_total") == prompt, "replicas and answers disagree on the prompts")
        return cached / prompt, prompt / seconds


def kill_one(tern):
    """(requests, errors of those that failed) when a replica dies under load."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        replicas = Replicas(tern, folder, stack)
        url = proxy(folder, replicas, stack, True)
        stop = threading.Event()
        failed, done = [], []

        def client(number):
            request = 0
            while not stop.is_set():
                request += 1
                try:
                    done.append(ask(url, number, request, tokens=64))
                except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                    failed.append(str(error))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        wait_for("answers of every replica", 60, lambda: len(done) > 24)
        before = len(done)
        replicas.processes[1].kill()
        wait_for("answers after the loss", 60, lambda: len(done) + len(failed) > before + 48)
        stop.set()
        for thread in threads:
            thread.join()
        return len(done) + len(failed), failed


def throughput(tern, count):
    """Output tokens per second of so many replicas of one thread each, asked through the proxy by 16 clients."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = proxy(folder, Replicas(tern, folder, stack, count), stack, True)
        done = subprocess.run([tern, "loadtest", "--url", url, "--concurrency", "16", "--duration", "8",
                               "--prompt-tokens", "100", "--output-tokens", "64", "--ignore-eos", "--json"],
                              capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    need("haproxy")
    tern = sys.argv[1]
    if sys.argv[2:] == ["throughput"]:
        for count in range(1, REPLICAS + 1):
            print(json.dumps({"replicas": count, **throughput(tern, count)}))
        return
    in_turn, turn_speed = hit_rate(tern, False)
    affine, affine_speed = hit_rate(tern, True)
    requests, failed = kill_one(tern)
    print(json.dumps({"hit_rate": {"in_turn": round(in_turn, 3), "affine": round(affine, 3)},
                      "prompt_tokens_per_second": {"in_turn": round(turn_speed), "affine": round(affine_speed)},
                      "killed": {"requests": requests, "failed": failed}}))
    # In turn each of three replicas computes each of 24 beginnings; otherwise one does, but for the requests that
    # a busy replica passes on.
    check(affine > in_turn + 0.03, f"hit rate {affine:.3f}, in turn {in_turn:.3f}")
    # Answers come whole, so none had begun: all were asked again elsewhere.
    check(not failed, f"{len(failed)} of {requests} requests failed: {failed[:3]}")


if __name__ == "__main__":
    main()
