"""Writes small GGUF v3 files with F32, F16 and I2_S tensors. Standard library only."""

import struct

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
ALIGNMENT = 32
# Types of tensors.
F32, F16, I2_S = 0, 1, 36


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


def _pack_i2_s(values):
    """Trits times one scale: four of a block of 128 in each of 32 bytes, then the scale."""
    scale = max(abs(value) for value in values)
    codes = [1 + round(value / scale) for value in values]
    data = b""
    for begin in range(0, len(codes), 128):
        block = codes[begin:begin + 128]
        data += bytes(block[i] << 6 | block[32 + i] << 4 | block[64 + i] << 2 | block[96 + i]
                      for i in range(32))
    return data + struct.pack("<f", scale) + b"\0" * 28


def _pack(kind, values):
    if kind == I2_S:
        return _pack_i2_s(values)
    return struct.pack("<%d%s" % (len(values), "e" if kind == F16 else "f"), *values)


def write(path, metadata, tensors):
    """tensors: name -> (extents, innermost first; flat list of floats, row-major; type, else F32)."""
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        header += _text(key) + _value(value)
    blob = b""
    for name, (extents, values, *kind) in tensors.items():
        kind = kind[0] if kind else F32
        blob += b"\0" * (-len(blob) % ALIGNMENT)
        header += _text(name) + struct.pack("<I", len(extents))
        header += b"".join(struct.pack("<Q", extent) for extent in extents)
        header += struct.pack("<IQ", kind, len(blob))
        blob += _pack(kind, values)
    header += b"\0" * (-len(header) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(header + blob)
