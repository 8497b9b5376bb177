#!/usr/bin/env python3
"""Writes an F16 model's projections with normal noise added: weights that are no trits.

    tools/quality/noise.py ../shared/data/models/tern-demo-7m-f16.gguf noisy.gguf --sigma 0.3

The noise of each projection has --sigma times the mean magnitude of its non-zero weights. Unlike
rotate.py's copy the model is a worse one than it was trained to be, but what comes into its
projections has the columns of the trained model: some carry much, others hardly anything.
Standard library only.
"""

import argparse
import pathlib
import random

from rotate import Reader


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--sigma", type=float, default=0.3)
    arguments = parser.parse_args()
    source = Reader(arguments.source.read_bytes())
    rng = random.Random(1)

    def noisy(name, extents, values):
        if not name.startswith("blk.") or len(extents) != 2:
            return values
        magnitudes = [abs(value) for value in values if value != 0]
        deviation = arguments.sigma * sum(magnitudes) / len(magnitudes)
        return [value + rng.gauss(0, deviation) for value in values]

    source.write(arguments.target, noisy)


if __name__ == "__main__":
    main()
