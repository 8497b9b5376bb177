// Figures as people read them.

const PREFIXES: [number, string][] = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
  [1, ""],
  [1e-3, "m"],
  [1e-6, "µ"],
  [1e-9, "n"],
  [1e-12, "p"],
];

// Three significant digits, without an exponent.
function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 99.95) return value.toFixed(0);
  return value.toFixed(size >= 9.995 ? 1 : 2);
}

// 0.0123, "s" -> "12.3 ms"
export function si(value: number, unit: string): string {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return `0 ${unit}`;
  const size = Math.abs(value);
  const [scale, prefix] = PREFIXES.find(([limit]) => size >= limit * 0.9995) ?? [1e-12, "p"];
  return `${digits(value / scale)} ${prefix}${unit}`;
}

// 2131972 -> "2,131,972"
export function count(value: number): string {
  return Math.round(value).toLocaleString("en");
}

// 0.613 -> "61.3 %"
export function percent(share: number): string {
  if (!Number.isFinite(share)) return "–";
  return `${(share * 100).toFixed(share > 0.9995 || share === 0 ? 0 : 1)} %`;
}
