"""Compares Tern's chat templates with Python's Jinja2: check_templates.py matrix|random RUNNER

golden DIRECTORY writes the expected texts of our own templates there, beside each template.

matrix: every template of TERN_TEST_DATA/templates (and our own in tests/data/templates_golden)
        over the conversations of template_conversations.py. Texts must be equal, and where Jinja
        raises, Tern must; raise_exception with the same message.
random: templates from the grammar in template_grammar.py, with a fixed seed.

Exit code 0: no mismatch; 1: mismatches, printed; 77: skipped, with the reason.
"""
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
NOW = 1789000000  # 10 September 2026


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(77)


try:
    import template_oracle
except ImportError as error:
    skip(f"Python's Jinja2 is not installed ({error})")


def run_tern(runner, cases):
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    result = subprocess.run([runner], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    # Not splitlines(): the texts hold line separators other than newlines.
    return [json.loads(line) for line in result.stdout.decode().split("\n") if line]


def mismatch(expected, actual):
    """Why the two answers differ, or None."""
    if isinstance(expected, Exception):
        if "error" not in actual:
            return f"Jinja raises {expected!r}, Tern renders {actual['text']!r}"
        raised = isinstance(expected, template_oracle.Raised)
        if raised != actual["raised"]:
            return f"Jinja raises {expected!r}, Tern {actual}"
        if raised and str(expected) != actual["error"]:
            return f"message {str(expected)!r}, Tern has {actual['error']!r}"
        return None
    if "error" in actual:
        return f"Jinja renders {expected!r}, Tern fails: {actual['error']}"
    if expected != actual["text"]:
        return f"Jinja:\n{expected!r}\nTern:\n{actual['text']!r}"
    return None


def compare(runner, cases, names):
    answers = run_tern(runner, cases)
    assert len(answers) == len(cases), "the runner stopped early"
    mismatches = 0
    errors = 0
    for case, name, actual in zip(cases, names, answers):
        expected = template_oracle.render(case["t"], case["v"], case["now"])
        errors += isinstance(expected, Exception)
        reason = mismatch(expected, actual)
        if reason is None:
            continue
        mismatches += 1
        if mismatches <= int(os.environ.get("TERN_SHOW_MISMATCHES", "10")):
            print(f"--- {name}\n{reason}\n")
    print(f"{len(cases)} cases, of which Jinja raises in {errors}: {mismatches} mismatches")
    return mismatches


def check_matrix(runner):
    import template_conversations

    data = pathlib.Path(os.environ.get("TERN_TEST_DATA", ROOT.parent / "shared" / "data"))
    paths = sorted((data / "templates").glob("*.jinja"))
    if not paths:
        skip(f"no templates under {data}")
    paths += sorted((ROOT / "tests" / "data" / "templates_golden").glob("*.jinja"))
    cases, names = [], []
    for path in paths:
        template = path.read_text(encoding="utf-8")
        for name, variables in template_conversations.variables():
            cases.append({"t": template, "v": variables, "now": NOW})
            names.append(f"{path.name}: {name}")
    print(f"{len(paths)} templates")
    return compare(runner, cases, names)


def check_random(runner):
    import template_grammar

    count = int(os.environ.get("TERN_RANDOM_TEMPLATES", "6000"))
    seed = int(os.environ.get("TERN_RANDOM_SEED", "20261121"))
    cases, names = [], []
    for index, (template, variables) in enumerate(template_grammar.generate(seed, count)):
        cases.append({"t": template, "v": variables, "now": NOW})
        names.append(f"random {index}: {template!r}")
    return compare(runner, cases, names)


def write_golden(directory):
    import template_conversations

    for path in sorted(pathlib.Path(directory).glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        golden = []
        for name, variables in template_conversations.variables():
            if not name.endswith(("no_tools/plain/prompt", "tools/thinking_off/no prompt")):
                continue
            expected = template_oracle.render(template, variables, NOW)
            key = "error" if isinstance(expected, Exception) else "text"
            golden.append({"name": name, "now": NOW, "variables": variables, key: str(expected)})
        text = json.dumps(golden, ensure_ascii=False, indent=1) + "\n"
        path.with_suffix(".json").write_text(text, encoding="utf-8")
        print(f"{path.name}: {len(golden)} cases")
    return 0


if __name__ == "__main__":
    modes = {"matrix": check_matrix, "random": check_random, "golden": write_golden}
    if len(sys.argv) != 3 or sys.argv[1] not in modes:
        sys.exit("usage: check_templates.py matrix|random RUNNER, or golden DIRECTORY")
    sys.exit(1 if modes[sys.argv[1]](sys.argv[2]) else 0)
