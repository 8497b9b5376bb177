#!/usr/bin/env python3
"""Prints the tests that skipped, with reasons, and fails on those that must not skip here.

    check_skips.py CTEST_JUNIT_XML ALLOWED_SKIPS
    check_skips.py --self-test

The format of ALLOWED_SKIPS is described at its top.
"""

import argparse
import os
import pathlib
import re
import shutil
import sys
import tempfile
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cpu_flags():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(found.group(1).split()) if found else set()


def conditions_here(build):
    """The names of the conditions that hold on this machine, for tests run in `build`."""
    data = pathlib.Path(os.environ.get("TERN_TEST_DATA", ROOT.parent / "shared" / "data"))
    flags = cpu_flags()
    rapl = pathlib.Path("/sys/class/powercap/intel-rapl:0/energy_uj")
    here = {"always"}
    if not (data / "README.md").exists():
        here.add("no-data")
    if not (shutil.which("node") and shutil.which("npm")):
        here.add("no-node")
    if not (build / "tests" / "integration" / "sdk" / "installed").exists():
        here.add("no-network")
    if not (build / "tests" / "integration" / "sdk" / "python" / "installed").exists():
        here.add("no-python-client")
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        here.add("no-prometheus")
    if not (shutil.which("kustomize") or shutil.which("kubectl")):
        here.add("no-kustomize")
    if not shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        here.add("no-haproxy")
    web = build / "tests" / "web" / "work"
    if not (web / "page" / "installed-lock.json").exists():
        here.add("no-web-packages")
    browsers = ("chromium", "chromium-browser", "google-chrome")
    driver = web / "browser" / "installed-lock.json"
    if not (any(map(shutil.which, browsers)) and driver.exists()):
        here.add("no-chromium")
    if not (build / "tests" / "tools" / "intercepted_system_blas").exists():
        here.add("no-blas")
    if "avx2" not in flags:
        here.add("no-avx2")
    if "avx512_vnni" not in flags:
        here.add("no-avx512")
    if not os.access(rapl, os.R_OK):
        here.add("no-rapl")
    if not pathlib.Path("/dev/nvidia0").exists():
        here.add("no-gpu")
    return here


KNOWN_CONDITIONS = {
    "always", "no-data", "no-node", "no-network", "no-python-client", "no-prometheus", "no-kustomize",
    "no-haproxy", "no-web-packages", "no-chromium", "no-blas", "no-avx2", "no-avx512", "no-rapl",
    "no-gpu"}


def read_allowed(path):
    """[(condition, compiled regex)]; raises ValueError with the line that cannot be read."""
    allowed = []
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        condition, _, regex = line.partition(" ")
        if condition not in KNOWN_CONDITIONS or not regex.strip():
            raise ValueError(f"{path}:{number}: expected `CONDITION REGEX`, found \"{line}\"")
        allowed.append((condition, re.compile(regex.strip())))
    return allowed


def reason_of(case):
    """The line that a GoogleTest prints under GTEST_SKIP, or the last line of the output."""
    output = case.findtext("system-out") or ""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for index, line in enumerate(lines):
        if re.search(r": Skipped$", line) and index + 1 < len(lines):
            return lines[index + 1]
    return lines[-1] if lines else "no reason printed"


def skipped_cases(junit):
    for case in xml.etree.ElementTree.parse(junit).getroot().iter("testcase"):
        if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            yield case.get("name"), reason_of(case)


def check(junit, allowed_path, here):
    """Prints the report; returns the number of skips that are not allowed."""
    allowed = read_allowed(allowed_path)
    refused = total = 0
    for name, reason in skipped_cases(junit):
        total += 1
        why = [condition for condition, regex in allowed
               if condition in here and regex.fullmatch(name)]
        refused += not why
        print(f"{'skipped' if why else 'SKIP NOT ALLOWED'}: {name} ({reason})")
    print(f"{total} tests skipped, {refused} of them not allowed in this environment.")
    return refused


def self_test():
    xml_text = """<testsuite>
      <testcase name="A.Runs" status="run"><system-out>fine</system-out></testcase>
      <testcase name="B.Data" status="notrun"><skipped message="x"/><system-out>t.cpp:3: Skipped
no shared data
</system-out></testcase>
      <testcase name="C.Other" status="notrun"><skipped message="x"/></testcase>
    </testsuite>"""
    with tempfile.TemporaryDirectory() as folder:
        junit = pathlib.Path(folder, "ctest.xml")
        junit.write_text(xml_text)
        rules = pathlib.Path(folder, "allowed.txt")
        rules.write_text("no-data B[.].*  # comment\n")
        assert dict(skipped_cases(junit)) == {"B.Data": "no shared data",
                                              "C.Other": "no reason printed"}
        assert check(junit, rules, {"no-data"}) == 1
        assert check(junit, rules, set()) == 2
        rules.write_text("no-data .*\n")
        assert check(junit, rules, {"no-data"}) == 0
        rules.write_text("sometimes .*\n")
        try:
            read_allowed(rules)
        except ValueError as error:
            assert "allowed.txt:1" in str(error)
        else:
            raise AssertionError("an unknown condition was accepted")
    read_allowed(ROOT / "tests" / "allowed_skips.txt")
    print("check_skips.py: self-test passed.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("junit", nargs="?")
    parser.add_argument("allowed", nargs="?")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        return 0
    if not arguments.junit or not arguments.allowed:
        parser.error("needs the JUnit file and the list of allowed skips")
    try:
        return 1 if check(arguments.junit, arguments.allowed,
                          conditions_here(pathlib.Path(arguments.junit).parent)) else 0
    except (OSError, ValueError, xml.etree.ElementTree.ParseError) as error:
        print(f"check_skips.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
