#!/usr/bin/env python3
"""Holds the includes to the layers and doors of docs/architecture.md.

    check_layers.py              checks this repository; exit 1 when something is wrong
    check_layers.py --self-test  shows that each rule can fail

Arrows point down only:

    cli -> config, server, scheduler, engine, fabric, gguf
    config -> the *_options.h of server, scheduler, engine and fabric
    server -> scheduler, engine, fabric        scheduler -> engine, fabric
    engine -> fabric, gguf                     fabric -> nothing     gguf -> nothing
"""

import argparse
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

FOLDERS = ("gguf", "fabric", "engine", "scheduler", "server", "config", "cli")

MAY_INCLUDE = {
    "gguf": {"gguf"},
    "fabric": {"fabric"},
    "engine": {"engine", "fabric", "gguf"},
    "scheduler": {"scheduler", "engine", "fabric"},
    # gguf: a load that fails throws gguf::FormatError, which the server turns into a sentence.
    "server": {"server", "scheduler", "engine", "fabric", "gguf"},
    "config": {"config", "server", "scheduler", "engine", "fabric"},
    "cli": set(FOLDERS),
}

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)

# (what, headers, where it may be included): each library has one door.
DOORS = [
    ("Boost", re.compile(r"^boost/"), re.compile(r"^server/")),
    ("JSON", re.compile(r"^nlohmann/"), re.compile(r"^(server|cli|config)/")),
    ("prometheus-cpp", re.compile(r"^prometheus/"), re.compile(r"^server/metrics\.(cpp|h)$")),
    ("oneTBB", re.compile(r"^(tbb|oneapi)/"), re.compile(r"^fabric/parallel\.cpp$")),
    ("TOML", re.compile(r"^toml\+\+/"), re.compile(r"^config/")),
    ("CLI11", re.compile(r"^CLI/"), re.compile(r"^cli/")),
    ("logging", re.compile(r"^(spdlog|fmt)/"), re.compile(r"^(server|cli)/")),
    ("OpenSSL", re.compile(r"^openssl/"), re.compile(r"^server/")),
    ("PCRE2", re.compile(r"^pcre2"), re.compile(r"^engine/text/")),
    ("utf8proc", re.compile(r"^utf8proc"), re.compile(r"^engine/text/")),
    ("intrinsics", re.compile(r"^(\w+intrin|arm_neon|arm_sve|cpuid)\.h$"),
     re.compile(r"^(fabric/kernels/\w+_(avx2|avx512\w*|avxvnni|neon\w*|amx\w*|sse\w*)\.(cpp|h)|"
                r"fabric/cpu/isa\.cpp)$")),
]

# Below server/, code returns, throws or fills a struct; it does not talk to the process.
LOWER = ("gguf", "fabric", "engine", "scheduler")
QUIET = [
    ("writes to the terminal",
     re.compile(r"std::(cout|cerr|clog)\b|(?<![\w:])(?:std::)?(?:printf|puts|fprintf|perror)\s*\(")),
    ("reads the environment", re.compile(r"\b(secure_)?getenv\s*\(|\benviron\b")),
    ("ends the process",
     re.compile(r"(?<![\w.>])(?:std::|::)?(?:exit|_exit|_Exit|quick_exit|terminate)\s*\(")),
]
# The one place that reads TERN_FORCE_ISA.
ENVIRONMENT_DOOR = "fabric/cpu/isa.cpp"
# A broken invariant is a bug and ends the process with its own message (docs/architecture.md).
INTEGRITY = re.compile(r"CheckIntegrity")


def strip_comments_and_strings(text):
    """Same number of lines, without comments and the contents of literals."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|'
        r"(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)
    return pattern.sub(lambda found: "\n" * found.group(0).count("\n"), text)


def line_of(text, index):
    return text.count("\n", 0, index) + 1


def check_includes(name, text):
    folder = name.split("/", 1)[0]
    for found in INCLUDE.finditer(text):
        header = found.group(1) or found.group(2)
        where = f"{name}:{line_of(text, found.start())}"
        target = header.split("/", 1)[0]
        if target in FOLDERS and "/" in header:
            if target not in MAY_INCLUDE[folder]:
                yield f"{where}: {folder}/ must not include {header}"
            elif folder == "config" and target != "config" and not header.endswith("_options.h"):
                yield f"{where}: config/ includes only *_options.h of other folders, not {header}"
            elif target == "config" and folder not in ("config", "cli"):
                yield f"{where}: only cli/ includes config/"
        elif found.group(1) and target not in FOLDERS:
            yield f"{where}: \"{header}\" must be a path from the root, such as \"{folder}/x.h\""
        for what, headers, door in DOORS:
            if headers.search(header) and not door.search(name):
                yield f"{where}: {what} ({header}) is not for {folder}/"


def check_quiet(name, text):
    if name.split("/", 1)[0] not in LOWER:
        return
    code = strip_comments_and_strings(text)
    for what, pattern in QUIET:
        if what == "reads the environment" and name == ENVIRONMENT_DOOR:
            continue
        for found in pattern.finditer(code):
            # Integrity checks print the broken invariant and abort.
            if what == "writes to the terminal" and INTEGRITY.search(code):
                continue
            yield f"{name}:{line_of(code, found.start())}: {what}, below server/"


def sources(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            # The C ABI's headers are plain C and include one another by name.
            if path.suffix in (".h", ".cpp", ".c", ".cu") and "include" not in path.parts:
                yield path


def check(root):
    problems = []
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        problems += check_includes(name, text)
        problems += check_quiet(name, text)
    return problems


GOOD = {
    "gguf/reader.cpp": '#include "gguf/reader.h"\n// std::cout is only named here, exit(1) too.\n',
    "gguf/reader.h": "#pragma once\n",
    "engine/weights.cpp": '#include "fabric/device.h"\nconst char* s = "getenv(";\n',
    "fabric/cpu/isa.cpp": '#include <cstdlib>\nauto v = getenv("TERN_FORCE_ISA");\n',
    "fabric/kernels/gemv_avx2.cpp": "#include <immintrin.h>\n",
    "fabric/parallel.cpp": "#include <tbb/parallel_for.h>\n",
    "server/session.cpp": "#include <boost/beast.hpp>\n#include <nlohmann/json.hpp>\n",
    "config/config.h": '#include "server/server_options.h"\n',
    "cli/main.cpp": '#include <CLI/CLI.hpp>\n#include "config/config.h"\nvoid f() { exit(2); }\n',
}

BAD = [
    ("gguf/reader.cpp", '#include "fabric/device.h"\n', "must not include fabric/device.h"),
    ("fabric/x.cpp", '#include "gguf/reader.h"\n', "must not include gguf/reader.h"),
    ("engine/x.h", '#include "scheduler/scheduler.h"\n', "must not include"),
    ("scheduler/x.h", '#include "server/app.h"\n', "must not include"),
    ("scheduler/x.h", '#include "gguf/reader.h"\n', "must not include"),
    ("server/x.h", '#include "config/config.h"\n', "must not include config/config.h"),
    ("config/x.h", '#include "server/app.h"\n', "only *_options.h"),
    ("engine/x.h", '#include "weights.h"\n', "path from the root"),
    ("scheduler/x.cpp", "#include <boost/asio.hpp>\n", "Boost"),
    ("engine/x.cpp", "#include <nlohmann/json.hpp>\n", "JSON"),
    ("server/app.cpp", "#include <prometheus/counter.h>\n", "prometheus-cpp"),
    ("engine/x.cpp", "#include <tbb/parallel_for.h>\n", "oneTBB"),
    ("fabric/vector_ops.cpp", "#include <immintrin.h>\n", "intrinsics"),
    ("fabric/kernels/gemv_scalar.cpp", "#include <immintrin.h>\n", "intrinsics"),
    ("engine/x.cpp", "void f() { std::cerr << 1; }\n", "writes to the terminal"),
    ("engine/x.cpp", "void f() {\n  std::printf(s);\n}\n", "x.cpp:2: writes to the terminal"),
    ("fabric/x.cpp", 'auto v = std::getenv("A");\n', "reads the environment"),
    ("scheduler/x.cpp", "void f() { std::exit(1); }\n", "ends the process"),
]


def write_tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        write_tree(pathlib.Path(folder), GOOD)
        problems = check(pathlib.Path(folder))
        assert not problems, problems
    for name, text, expected in BAD:
        with tempfile.TemporaryDirectory() as folder:
            write_tree(pathlib.Path(folder), {**GOOD, name: text})
            problems = check(pathlib.Path(folder))
            assert len(problems) == 1 and expected in problems[0], (name, text, problems)
    print(f"check_layers.py: self-test passed ({len(BAD)} broken trees refused).")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--self-test", action="store_true")
    if parser.parse_args().self_test:
        self_test()
        return 0
    problems = check(ROOT)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"check_layers.py: {sum(1 for _ in sources(ROOT))} files keep the layers.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
