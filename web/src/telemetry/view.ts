// Live telemetry from /metrics, once a second while it is looked at.

import type { Api } from "../api.ts";
import { h, icon, on, replace } from "../dom.ts";
import { count, percent, si } from "../format.ts";
import { text } from "../text.ts";
import { Chart, type Line } from "./charts.ts";
import { KvMap } from "./kv_map.ts";
import { History, type Interval, type Labels, type Quantile, Scrape } from "./prometheus.ts";

const PERIOD_MS = 1000;
const QUANTILE_SECONDS = 60;
const SHARE_SECONDS = 10;

const words = text.telemetry;
const seconds = (value: number) => si(value, "s");
const perSecond = (value: number) => count(value);

export class TelemetryView {
  readonly element = h("div", { class: "telemetry" });
  private readonly history = new History();
  private readonly modelSelect = h("select", { "aria-label": words.model, class: "model" });
  private readonly pauseButton = h("button", { type: "button", class: "button" });
  private readonly status = h("span", { class: "hint", role: "status" });
  private readonly tiles = h("dl", { class: "tiles" });
  private readonly throughput = new Chart(words.throughput, words.throughputUnit, perSecond, 10);
  private readonly firstToken = new Chart(words.firstToken, words.latencyUnit, seconds, 0.001);
  private readonly interToken = new Chart(words.interToken, words.latencyUnit, seconds, 0.001);
  private readonly queue = new Chart(words.queue, words.queueUnit, (value) => value.toFixed(0), 4);
  private readonly time = new Chart(words.time, words.timeUnit, percent, 1, true);
  private readonly kv = new KvMap();
  private timer = 0;
  private paused = false;
  private running = false;
  private model = "";

  constructor(private readonly api: Api) {
    on(this.modelSelect, {
      change: () => {
        this.model = this.modelSelect.value;
        this.draw();
      },
    });
    on(this.pauseButton, { click: () => this.setPaused(!this.paused) });
    this.element.append(
      h(
        "div",
        { class: "telemetry-inner" },
        h("div", { class: "telemetry-top" }, this.modelSelect, this.status, this.pauseButton),
        this.tiles,
        h(
          "div",
          { class: "cards" },
          this.throughput.element,
          this.queue.element,
          this.firstToken.element,
          this.interToken.element,
          this.time.element,
          this.kv.element,
        ),
      ),
    );
    this.setPaused(false);
    this.status.textContent = words.waiting;
  }

  start(): void {
    if (this.running) return;
    this.running = true;
    void this.scrape();
  }

  stop(): void {
    this.running = false;
    clearTimeout(this.timer);
  }

  private setPaused(paused: boolean): void {
    this.paused = paused;
    replace(this.pauseButton, icon(paused ? "play" : "pause"), paused ? words.resume : words.pause);
    this.status.textContent = paused ? words.paused : words.window;
  }

  private async scrape(): Promise<void> {
    clearTimeout(this.timer);
    const begin = performance.now();
    if (!this.paused && document.visibilityState === "visible") {
      try {
        this.history.add(new Scrape(await this.api.metrics(), begin / 1000));
        this.status.textContent = words.window;
        this.draw();
      } catch {
        // The page's banner says what is wrong with the connection.
        this.status.textContent = words.waiting;
      }
    }
    if (!this.running) return;
    const rest = PERIOD_MS - (performance.now() - begin);
    this.timer = window.setTimeout(() => void this.scrape(), Math.max(50, rest));
  }

  private draw(): void {
    const scrape = this.history.latest;
    if (!scrape) return;
    const models = scrape.labelValues("tern_model_ready", "model_name");
    if (!models.includes(this.model)) this.model = models[0] ?? "";
    if (this.modelSelect.childElementCount !== models.length) {
      replace(this.modelSelect, ...models.map((name) => h("option", { value: name }, name)));
    }
    this.modelSelect.value = this.model;
    const labels = { model_name: this.model };
    this.drawTiles(scrape, labels);
    this.drawCharts(labels);
    const cached = scrape.value("tern_kv_blocks_cached", labels);
    const used = scrape.value("tern_kv_blocks_used", labels);
    this.kv.update(used, cached, scrape.value("tern_kv_blocks", labels));
  }

  private drawTiles(scrape: Scrape, labels: Labels): void {
    const recent = this.history.last(QUANTILE_SECONDS);
    const tokens = recent?.increase("tern_engine_step_tokens_total", labels) ?? 0;
    const perToken = (total: number, unit: string) => (tokens > 0 ? si(total / tokens, unit) : "–");
    const bytes = recent
      ? recent.increase("tern_fabric_bytes_total", { ...labels, direction: "weights" }) +
        recent.increase("tern_fabric_bytes_total", { ...labels, direction: "dense" }) +
        recent.increase("tern_kv_bytes_read_total", labels)
      : 0;
    const effective = recent?.ratio(
      "tern_fabric_effective_ops_total",
      "tern_fabric_ops_total",
      labels,
    );
    const energy = recent?.increase("tern_energy_proxy_joules_total", labels) ?? 0;
    const steps = recent?.ratio("tern_engine_step_tokens_total", "tern_engine_steps_total", labels);
    const hits = recent?.ratio(
      "tern_prefix_cache_hits_total",
      "tern_prefix_cache_queries_total",
      labels,
    );
    const total =
      scrape.value("tern_prompt_tokens_total", labels) +
      scrape.value("tern_generation_tokens_total", labels);
    const tiles: [string, string, string][] = [
      [words.skipRate, effective == null ? "–" : percent(1 - effective), text.fabric.skipRateHelp],
      [words.bytesPerToken, perToken(bytes, "B"), text.fabric.bytesPerTokenHelp],
      [words.energy, perToken(energy, "J"), text.fabric.energyHelp],
      [words.stepTokens, steps == null ? "–" : steps.toFixed(1), ""],
      [words.prefixHits, hits == null ? "–" : percent(hits), words.prefixHitsHelp],
      [words.total, count(total), ""],
      [words.preemptions, count(scrape.value("tern_preemptions_total", labels)), ""],
      [words.errors, count(scrape.value("tern_admission_rejections_total", labels)), ""],
    ];
    replace(
      this.tiles,
      ...tiles.map(([name, value, help]) =>
        h("div", { title: help || null }, h("dt", {}, name), h("dd", {}, value)),
      ),
    );
  }

  private drawCharts(labels: Labels): void {
    const rates = (name: string) =>
      this.history.map(PERIOD_MS / 1000, (interval) => interval.rate(name, labels));
    this.throughput.update([
      { name: words.generated, style: "first", values: rates("tern_generation_tokens_total") },
      { name: words.prompt, style: "second", values: rates("tern_prompt_tokens_total") },
    ]);
    const gauge = (name: string) => this.history.map(0, (_, scrape) => scrape.value(name, labels));
    this.queue.update([
      { name: words.running, style: "first", values: gauge("tern_requests_running") },
      { name: words.waitingRequests, style: "second", values: gauge("tern_requests_waiting") },
    ]);
    this.firstToken.update(this.latency("tern_time_to_first_token_seconds", labels));
    this.interToken.update(this.latency("tern_inter_token_latency_seconds", labels));
    this.time.update(this.shares(labels));
  }

  // The mean comes from the sum, so it is exact; the quantile from the buckets.
  private latency(histogram: string, labels: Labels): Line[] {
    const over = <T>(figure: (interval: Interval) => T) =>
      this.history.map(QUANTILE_SECONDS, (interval) => figure(interval));
    const p95 = over((interval) => interval.quantile(histogram, 0.95, labels));
    return [
      {
        name: words.mean,
        style: "first",
        values: over((interval) => interval.mean(histogram, labels)),
      },
      {
        name: words.p95,
        style: "second",
        values: p95.map((quantile) => (quantile && !quantile.atMost ? quantile.value : null)),
        shown: shownQuantile(p95[p95.length - 1] ?? null),
      },
    ];
  }

  private shares(labels: Labels): Line[] {
    const parts = this.history.map(SHARE_SECONDS, (interval) => {
      const total = interval.increase("tern_engine_step_seconds_total", labels);
      if (total <= 0) return null;
      const share = (name: string) => Math.max(0, interval.increase(name, labels) / total);
      const fabric = share("tern_fabric_seconds_total");
      const attention = share("tern_engine_attention_seconds_total");
      const head = share("tern_engine_head_seconds_total");
      return [fabric, attention, head, Math.max(0, 1 - fabric - attention - head)];
    });
    const names = [words.fabric, words.attention, words.head, words.host];
    const styles = ["first", "second", "third", "rest"] as const;
    return names.map((name, part) => ({
      name,
      style: styles[part] as (typeof styles)[number],
      values: parts.map((shares) => shares?.[part] ?? null),
    }));
  }
}

function shownQuantile(quantile: Quantile | null): string {
  if (!quantile) return "–";
  return quantile.atMost ? `≤ ${seconds(quantile.value)}` : seconds(quantile.value);
}
