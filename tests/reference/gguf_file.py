"""Writes small GGUF v3 files with F32 tensors. Standard library only."""

import struct

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
ALIGNMENT = 32


def _text(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _scalar(kind, value):
    if kind == STRING:
        return _text(value)
    if kind == BOOL:
        return struct.pack("<B", int(value))
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f"}[kind], value)


def _value(value):
    if isinstance(value, tuple):  # (element kind, list)
        kind, items = value
        body = b"".join(_scalar(kind, item) for item in items)
        return struct.pack("<IIQ", ARRAY, kind, len(items)) + body
    for python_type, kind in ((bool, BOOL), (int, UINT32), (float, FLOAT32), (str, STRING)):
        if isinstance(value, python_type):
            return struct.pack("<I", kind) + _scalar(kind, value)
    raise TypeError(value)


def write(path, metadata, tensors):
    """tensors: name -> (extents, innermost first; flat list of floats, row-major)."""
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        header += _text(key) + _value(value)
    blob = b""
    for name, (extents, values) in tensors.items():
        blob += b"\0" * (-len(blob) % ALIGNMENT)
        header += _text(name) + struct.pack("<I", len(extents))
        header += b"".join(struct.pack("<Q", extent) for extent in extents)
        header += struct.pack("<IQ", 0, len(blob))
        blob += struct.pack("<%df" % len(values), *values)
    header += b"\0" * (-len(header) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(header + blob)
