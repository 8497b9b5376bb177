"""SVG charts with the standard library alone: lines in panels and bars, each a whole document as text."""

import math
from html import escape

PALETTE = ["#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#475569"]
INK, FAINT = "#1f2937", "#d1d5db"
FONT = "font-family='system-ui, DejaVu Sans, sans-serif'"


def nice_ticks(low, high, count=5):
    span = (high - low) or 1
    step = 10 ** math.floor(math.log10(span / count))
    step *= min((factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count), default=10)
    first = math.floor(low / step)
    return [tick * step for tick in range(first, math.ceil(high / step) + 1)]


def label(value):
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value / 1000:g}k" if value % 100 == 0 else f"{value / 1000:.1f}k"
    return f"{value:.3g}"


def text(x, y, content, size=12, anchor="start", weight="normal", fill=INK):
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' font-weight='{weight}' "
            f"fill='{fill}'>{escape(str(content))}</text>")


def svg(width, height, title, parts):
    return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
            f"role='img' aria-label='{escape(title, quote=True)}' {FONT}>\n<rect width='{width}' height='{height}' "
            f"fill='white'/>\n" + "\n".join([text(16, 26, title, 15, weight="600"), *parts]) + "\n</svg>\n")


def legend(names, x, y):
    parts = []
    for i, name in enumerate(names):
        parts.append(f"<rect x='{x:.1f}' y='{y - 9}' width='12' height='12' rx='2' fill='{PALETTE[i % len(PALETTE)]}'/>")
        parts.append(text(x + 17, y + 1, name))
        x += 32 + 7.2 * len(name)
    return parts


def axes(left, top, width, height, ticks, unit):
    high = ticks[-1] or 1
    parts = [text(left, top - 9, unit, 11, fill="#6b7280")]
    for tick in ticks:
        y = top + height - height * tick / high
        parts.append(f"<line x1='{left}' y1='{y:.1f}' x2='{left + width}' y2='{y:.1f}' stroke='{FAINT}'/>")
        parts.append(text(left - 6, y + 4, label(tick), 11, "end"))
    return parts, high


def lines(title, unit, x_name, panels):
    """panels: [(name, {series: [(x, y)]})]; every panel has its own y scale, x positions are evenly spaced."""
    width, height, gap, left, top = 268, 200, 62, 60, 92
    names = list(dict.fromkeys(name for _, series in panels for name in series))
    unit = unit if isinstance(unit, list) else [unit] * len(panels)
    parts = legend(names, 16, 50) if len(names) > 1 else []
    for index, (name, series) in enumerate(panels):
        x0 = left + index * (width + gap)
        xs = sorted({x for points in series.values() for x, _ in points})
        ticks = nice_ticks(0, max((y for points in series.values() for _, y in points), default=1))
        axis, high = axes(x0, top, width, height, ticks, unit[index])
        parts += axis + [text(x0 + width, top - 9, name, 12, "end", "600")]

        def place(x):
            return x0 + 14 + (width - 28) * (xs.index(x) / max(1, len(xs) - 1))
        for x in xs:
            parts.append(text(place(x), top + height + 17, x, 11, "middle"))
        parts.append(text(x0 + width / 2, top + height + 34, x_name, 11, "middle", fill="#6b7280"))
        for series_name, points in series.items():
            colour = PALETTE[names.index(series_name) % len(PALETTE)]
            placed = [(place(x), top + height - height * y / high) for x, y in sorted(points)]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
            parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in placed]
    return svg(left + len(panels) * (width + gap) - gap + 20, top + height + 48, title, parts)


def bars(title, unit, groups):
    """groups: [(name, {series: (height, figure that stands on the bar)})]."""
    names = list(dict.fromkeys(name for _, series in groups for name in series))
    bar, left, top, height, gap = 44, 64, 92, 200, 30
    widest = sum(len(series) * bar + gap for _, series in groups)
    width = max(widest, 330, 30 + sum(32 + 7.2 * len(name) for name in names))
    # Room for the figure on the tallest one.
    ticks = nice_ticks(0, 1.1 * max(value for _, series in groups for value, _ in series.values()))
    parts, high = axes(left, top, width, height, ticks, unit)
    parts += legend(names, 16, 50) if len(names) > 1 else []
    x = left + gap / 2
    for name, series in groups:
        for series_name, (value, shown) in series.items():
            tall = height * value / high
            parts.append(f"<rect x='{x + 3:.1f}' y='{top + height - tall:.1f}' width='{bar - 6}' height='{tall:.1f}' "
                         f"rx='2' fill='{PALETTE[names.index(series_name) % len(PALETTE)]}'/>")
            parts.append(text(x + bar / 2, top + height - tall - 5, label(float(f"{shown:.3g}")), 11, "middle"))
            x += bar
        parts.append(text(x - len(series) * bar / 2, top + height + 18, name, 12, "middle"))
        x += gap
    return svg(int(left + width + 20), top + height + 34, title, parts)
