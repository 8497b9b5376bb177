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
import struct

from rotate import ALIGNMENT, F16, Reader, text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--sigma", type=float, default=0.3)
    arguments = parser.parse_args()
    source = Reader(arguments.source.read_bytes())
    rng = random.Random(1)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(source.tensors), source.entries)
    header += source.metadata
    blob = b""
    for name, extents, kind, offset in source.tensors:
        values = source.values(extents, kind, offset)
        if name.startswith("blk.") and len(extents) == 2:
            magnitudes = [abs(value) for value in values if value != 0]
            deviation = arguments.sigma * sum(magnitudes) / len(magnitudes)
            values, kind = [value + rng.gauss(0, deviation) for value in values], F16
        header += text(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind,
                                           len(blob))
        blob += struct.pack(f"<{len(values)}{'e' if kind == F16 else 'f'}", *values)
        blob += b"\0" * (-len(blob) % ALIGNMENT)
    header += b"\0" * (-len(header) % ALIGNMENT)
    arguments.target.write_bytes(header + blob)


if __name__ == "__main__":
    main()
