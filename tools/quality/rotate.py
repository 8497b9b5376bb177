#!/usr/bin/env python3
"""Writes an F16 model's projections rotated: the same model, with weights that are no trits.

    tools/quality/rotate.py ../shared/data/models/tern-demo-7m-f16.gguf rotated.gguf

Each row w of a projection becomes H(s * w), H the Hadamard matrix of blocks of 128 columns over
sqrt(128), s fixed signs; prism.hadamard metadata makes the engine apply the same to the input, so
that products are those of the original. Sums of 128 signed trits have nearly a normal distribution:
a trained model to measure quantisers of float weights with. Standard library only.
"""

import argparse
import math
import pathlib
import random
import struct

BLOCK = 128
F32, F16 = 0, 1
STRING, INT32, UINT32, ARRAY = 8, 5, 4, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32


class Reader:
    """The parts of a GGUF v3 file that are needed: metadata as bytes, tensors as views."""

    def __init__(self, data):
        self.data = data
        self.at = 4
        version, tensors, entries = self.take("<IQQ")
        assert data[:4] == b"GGUF" and version == 3, "not a GGUF v3 file"
        begin = self.at
        for _ in range(entries):
            self.text()
            self.skip_value(*self.take("<I"))
        self.entries = entries
        self.metadata = data[begin:self.at]
        self.tensors = []
        for _ in range(tensors):
            name = self.text()
            (rank,) = self.take("<I")
            extents = self.take(f"<{rank}Q")
            kind, offset = self.take("<IQ")
            self.tensors.append((name, extents, kind, offset))
        self.base = -(-self.at // ALIGNMENT) * ALIGNMENT

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        (length,) = self.take("<Q")
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def skip_value(self, kind):
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            element, count = self.take("<IQ")
            for _ in range(count):
                self.skip_value(element)
        else:
            self.at += SIZES[kind]

    def values(self, extents, kind, offset):
        form = f"<{math.prod(extents)}{'e' if kind == F16 else 'f'}"
        return struct.unpack_from(form, self.data, self.base + offset)

    def write(self, target, change, entries=0, metadata=b""):
        """A copy with more metadata. change(name, extents, values) gives the values of a tensor:
        the same object, or others, which are kept as F16."""
        header = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), self.entries + entries)
        header += self.metadata + metadata
        blob = b""
        for name, extents, kind, offset in self.tensors:
            old = self.values(extents, kind, offset)
            values = change(name, extents, old)
            kind = kind if values is old else F16
            header += text(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind,
                                               len(blob))
            blob += struct.pack(f"<{len(values)}{'e' if kind == F16 else 'f'}", *values)
            blob += b"\0" * (-len(blob) % ALIGNMENT)
        header += b"\0" * (-len(header) % ALIGNMENT)
        target.write_bytes(header + blob)


def rotate(row, signs):
    """H(s * row), by the fast transform: equal to the definition but for the last bits."""
    out = [s * w for s, w in zip(signs, row)]
    half = 1
    while half < BLOCK:
        for begin in range(0, len(out), 2 * half):
            low, high = out[begin:begin + half], out[begin + half:begin + 2 * half]
            out[begin:begin + half] = [a + b for a, b in zip(low, high)]
            out[begin + half:begin + 2 * half] = [a - b for a, b in zip(low, high)]
        half *= 2
    scale = 1 / math.sqrt(BLOCK)
    return [scale * value for value in out]


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def array(key, kind, items):
    body = b"".join(text(i) if kind == STRING else struct.pack("<i", i) for i in items)
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(items)) + body


def rotation_metadata(signs, names):
    prefix = "prism.hadamard."
    widths = sorted(signs)
    entries = [text(prefix + "version") + struct.pack("<II", UINT32, 1),
               text(prefix + "block_size") + struct.pack("<II", UINT32, BLOCK),
               array(prefix + "sign_widths", INT32, widths),
               array(prefix + "sign_values", INT32, [s for w in widths for s in signs[w]]),
               array(prefix + "weight_names", STRING, names)]
    for key, value in [("transform", "normalized-sylvester-walsh-hadamard"),
                       ("axis", "input-last-dimension"), ("sign_mode", "explicit")]:
        entries.append(text(prefix + key) + struct.pack("<I", STRING) + text(value))
    return len(entries), b"".join(entries)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    arguments = parser.parse_args()
    source = Reader(arguments.source.read_bytes())
    rng = random.Random(1)
    projections = [t for t in source.tensors if t[0].startswith("blk.") and len(t[1]) == 2]
    signs = {width: [rng.choice((-1, 1)) for _ in range(width)]
             for width in sorted({t[1][0] for t in projections})}
    assert all(width % BLOCK == 0 for width in signs), f"columns must be multiples of {BLOCK}"
    names = [t[0] for t in projections]
    count, more = rotation_metadata(signs, names)

    def rotated(name, extents, values):
        width = extents[0]
        if name not in names:
            return values
        rows = [rotate(values[i:i + width], signs[width]) for i in range(0, len(values), width)]
        return [value for row in rows for value in row]

    source.write(arguments.target, rotated, count, more)


if __name__ == "__main__":
    main()
