#!/usr/bin/env python3
"""Parses every script of the recipe; needs none of its packages."""

import ast
import pathlib
import sys

for script in sorted(pathlib.Path(__file__).resolve().parent.glob("*.py")):
    try:
        ast.parse(script.read_text(encoding="utf-8"), script.name)
    except SyntaxError as error:
        sys.exit(f"{script.name}:{error.lineno}: {error.msg}")
