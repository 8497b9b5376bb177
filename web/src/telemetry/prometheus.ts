// Prometheus' text format, as far as the server writes it, and what can be read off two scrapes.

export type Labels = Record<string, string>;

interface Sample {
  labels: Labels;
  value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{((?:[^"}]|"(?:\\.|[^"\\])*")*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:\\.|[^"\\])*)"/g;

function unescape(value: string): string {
  return value.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
}

function numberOf(value: string): number {
  return value === "+Inf" ? Infinity : value === "-Inf" ? -Infinity : Number(value);
}

export interface Quantile {
  value: number;
  // It lies in the first bucket: all that is known is that it is at most `value`.
  atMost: boolean;
}

// One scrape of /metrics.
export class Scrape {
  private readonly samples = new Map<string, Sample[]>();

  // time: seconds.
  constructor(
    text: string,
    readonly time: number,
  ) {
    for (const line of text.split("\n")) {
      if (line.startsWith("#")) continue;
      const found = LINE.exec(line);
      if (!found) continue;
      const labels: Labels = {};
      for (const label of (found[2] ?? "").matchAll(LABEL)) {
        labels[label[1] as string] = unescape(label[2] as string);
      }
      const name = found[1] as string;
      const sample = { labels, value: numberOf(found[3] as string) };
      const known = this.samples.get(name);
      if (known) {
        known.push(sample);
      } else {
        this.samples.set(name, [sample]);
      }
    }
  }

  has(name: string): boolean {
    return this.samples.has(name);
  }

  // Sum of the samples that have all these labels; 0 without any.
  value(name: string, labels: Labels = {}): number {
    return this.find(name, labels).reduce((sum, sample) => sum + sample.value, 0);
  }

  // Values of one label, in the order in which they come.
  labelValues(name: string, label: string): string[] {
    const values = (this.samples.get(name) ?? []).map((sample) => sample.labels[label] ?? "");
    return [...new Set(values)];
  }

  // [upper bound, observations up to it], ascending.
  buckets(name: string, labels: Labels = {}): [number, number][] {
    return this.find(`${name}_bucket`, labels)
      .map((sample): [number, number] => [numberOf(sample.labels.le ?? ""), sample.value])
      .sort((a, b) => a[0] - b[0]);
  }

  private find(name: string, labels: Labels): Sample[] {
    return (this.samples.get(name) ?? []).filter((sample) =>
      Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
    );
  }
}

// What was counted between two scrapes.
export class Interval {
  constructor(
    private readonly from: Scrape,
    private readonly to: Scrape,
  ) {}

  get seconds(): number {
    return this.to.time - this.from.time;
  }

  increase(name: string, labels: Labels = {}): number {
    return this.to.value(name, labels) - this.from.value(name, labels);
  }

  rate(name: string, labels: Labels = {}): number {
    return this.seconds > 0 ? this.increase(name, labels) / this.seconds : 0;
  }

  // a's increase over b's; null when b did not increase.
  ratio(a: string, b: string, labels: Labels): number | null {
    const divisor = this.increase(b, labels);
    return divisor > 0 ? this.increase(a, labels) / divisor : null;
  }

  mean(histogram: string, labels: Labels): number | null {
    return this.ratio(`${histogram}_sum`, `${histogram}_count`, labels);
  }

  // As Prometheus' histogram_quantile: linear inside a bucket. null without observations.
  quantile(histogram: string, q: number, labels: Labels): Quantile | null {
    const before = new Map(this.from.buckets(histogram, labels));
    const buckets = this.to
      .buckets(histogram, labels)
      .map(([bound, count]): [number, number] => [bound, count - (before.get(bound) ?? 0)]);
    const total = buckets[buckets.length - 1]?.[1] ?? 0;
    if (total <= 0) return null;
    const rank = q * total;
    const index = buckets.findIndex(([, count]) => count >= rank);
    const [bound, count] = buckets[index] as [number, number];
    const [low, below] = buckets[index - 1] ?? [0, 0];
    if (index === 0) return { value: bound, atMost: true };
    // Beyond the last bound: that bound, as Prometheus does.
    if (bound === Infinity) return { value: low, atMost: false };
    const inside = count - below;
    return { value: low + (bound - low) * (inside > 0 ? (rank - below) / inside : 1), atMost: false };
  }
}

const MAX_SCRAPES = 121;
// Scrapes do not come to the millisecond.
const SLACK = 0.5;

// The latest scrapes, oldest first. A server that started anew starts anew here.
export class History {
  private scrapes: Scrape[] = [];

  add(scrape: Scrape): void {
    const last = this.latest;
    const started = "process_start_time_seconds";
    if (last && last.value(started) !== scrape.value(started)) this.scrapes = [];
    this.scrapes = [...this.scrapes, scrape].slice(-MAX_SCRAPES);
  }

  get latest(): Scrape | null {
    return this.scrapes[this.scrapes.length - 1] ?? null;
  }

  get length(): number {
    return this.scrapes.length;
  }

  // For each scrape but the first, what happened in the `seconds` before it, as far as is known.
  map<T>(seconds: number, figure: (interval: Interval, scrape: Scrape) => T): T[] {
    let from = 0;
    return this.scrapes.slice(1).map((to, index) => {
      while (from < index && to.time - (this.scrapes[from] as Scrape).time > seconds + SLACK) ++from;
      return figure(new Interval(this.scrapes[from] as Scrape, to), to);
    });
  }

  // The last `seconds`; null before the second scrape.
  last(seconds: number): Interval | null {
    const to = this.latest;
    if (!to || this.scrapes.length < 2) return null;
    const from = this.scrapes.find((scrape) => to.time - scrape.time <= seconds + SLACK) as Scrape;
    return new Interval(from === to ? (this.scrapes[this.scrapes.length - 2] as Scrape) : from, to);
  }
}
