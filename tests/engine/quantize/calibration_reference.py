#!/usr/bin/env python3
"""Expected trits and scales of every calibration, from the published formulas and plain Python.

    calibration_reference.py > tests/data/calibration.json

Independent of the C++: exact rational sums, sorting for percentiles, one rounding to float32 at the
end. Weights are sums of four uniform numbers (a bell shape) with 20 significant bits.
"""

import json
import math
import struct
from fractions import Fraction


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def weights(count, seed, shift):
    state = seed
    values = []
    for _ in range(count):
        total = 0
        for _ in range(4):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            total += (state >> 46) - 2**17
        values.append(Fraction(total + shift, 2**20))
    return values


def mean(values):
    return sum(values, Fraction(0)) / len(values)


def deviation(magnitudes):
    """Of the population; a square root is the one step that is not rational."""
    centre = mean(magnitudes)
    return Fraction(math.sqrt(mean([(m - centre) ** 2 for m in magnitudes])))


def levels(rule, threshold, values):
    """The threshold and the rule's own scale (None: the mean over kept weights)."""
    magnitudes = [abs(v) for v in values]
    if rule == "absmean":
        return threshold * mean(magnitudes), mean(magnitudes)
    if rule == "twn":
        return threshold * mean(magnitudes), None
    if rule == "percentile":
        rank = math.ceil(threshold / 100 * len(values))
        limit = sorted(magnitudes)[rank - 1] if rank >= 1 else Fraction(0)
        if sum(m <= limit for m in magnitudes) > rank >= 1:
            # Ties would zero more than the share: the next smaller magnitude is the limit.
            limit = max([m for m in magnitudes if m < limit], default=Fraction(0))
        return limit, None
    if rule == "mean-std":
        return mean(magnitudes) + threshold * deviation(magnitudes), None
    if rule == "absmax":
        return threshold * max(magnitudes), max(magnitudes)
    if rule == "minmax":
        half = (max(values + [0]) - min(values + [0])) / 2
        return threshold * half, half
    raise ValueError(rule)


def ternarize(rule, threshold, fit_scale, values):
    limit, scale = levels(rule, threshold, values)
    limit = max(limit, Fraction(0))
    trits = [0 if abs(v) <= limit else (-1 if v < 0 else 1) for v in values]
    kept = [abs(v) for v, t in zip(values, trits) if t != 0]
    if not kept:
        return trits, 0.0
    if scale is None or fit_scale:
        scale = mean(kept)
    return trits, float32(float(scale))


CASES = [
    ("absmean", "1/2"), ("absmean", "1"), ("twn", "7/10"), ("twn", "0"), ("twn", "50"),
    ("percentile", "46"), ("percentile", "0"), ("percentile", "99"), ("percentile", "100"),
    ("mean-std", "-3/10"), ("mean-std", "1"), ("mean-std", "-9"), ("absmax", "1/2"),
    ("absmax", "1/8"), ("minmax", "1/2"), ("minmax", "1/4"),
]


def main():
    inputs = {"bell": weights(257, 1, 0), "shifted": weights(100, 2, 60000),
              "one": [Fraction(-3, 8)],
              "few levels": [Fraction(n % 3 - 1, 4) for n in range(30)] + [Fraction(3, 4)] * 5, "with zeros": weights(31, 3, 0) + [Fraction(0)] * 33}
    cases = []
    for name, values in inputs.items():
        for rule, threshold in CASES:
            for fit_scale in (False, True):
                trits, scale = ternarize(rule, Fraction(threshold), fit_scale, values)
                cases.append({"input": name, "rule": rule, "threshold": float(Fraction(threshold)),
                              "fit_scale": fit_scale, "scale": scale,
                              "trits": "".join("-0+"[t + 1] for t in trits)})
    inputs = {name: [float(v) for v in values] for name, values in inputs.items()}
    print(json.dumps({"inputs": inputs, "cases": cases}, indent=0))


if __name__ == "__main__":
    main()
