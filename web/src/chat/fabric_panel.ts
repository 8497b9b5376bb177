// What one answer cost: its figures, and the skip rate of each layer as a strip of colours.

import type { AnswerStats } from "../conversation.ts";
import { h, s } from "../dom.ts";
import { percent, si } from "../format.ts";
import { text } from "../text.ts";

export function fabricPanel(stats: AnswerStats): HTMLElement {
  const { usage } = stats;
  const panel = h("div", { class: "fabric-panel" });
  const figures = h("dl", { class: "figures" });
  panel.appendChild(figures);
  const add = (name: string, value: string, help?: string) =>
    figures.appendChild(
      h("div", { title: help }, h("dt", {}, name), h("dd", {}, value)),
    );

  const tern = usage?.tern;
  if (tern) {
    const seconds = tern.fabric_seconds + tern.host_seconds;
    add(text.fabric.skipRate, percent(tern.skip_rate), text.fabric.skipRateHelp);
    add(text.fabric.bytesPerToken, si(tern.bytes_per_token, "B"), text.fabric.bytesPerTokenHelp);
    add(text.fabric.energy, si(tern.energy_proxy_joules, "J"), text.fabric.energyHelp);
    const share = seconds > 0 ? percent(tern.fabric_seconds / seconds) : "–";
    add(text.fabric.fabricShare, share, text.fabric.fabricShareHelp);
  }
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    const prompt = text.chat.tokens(usage.prompt_tokens);
    add(text.fabric.promptTokens, cached ? `${prompt}, ${text.fabric.cached(cached)}` : prompt);
    add(text.fabric.completionTokens, text.chat.tokens(usage.completion_tokens));
  }
  if (stats.seed !== undefined) add(text.fabric.seed, String(stats.seed));
  if (tern?.layer_skip_rates?.length) panel.appendChild(heatStrip(tern.layer_skip_rates));
  panel.appendChild(h("p", { class: "hint" }, tern ? text.fabric.shared : text.fabric.absent));
  return panel;
}

// Colour spans the rates that there are, so that small differences show; the scale says so.
function heatStrip(rates: number[]): HTMLElement {
  const low = Math.min(...rates);
  const high = Math.max(...rates);
  const span = high - low || 1;
  const cells = rates.map((rate, index) =>
    s(
      "rect",
      {
        x: index,
        y: 0,
        width: 0.92,
        height: 1,
        class: "heat",
        "fill-opacity": (0.15 + 0.85 * ((rate - low) / span)).toFixed(3),
      },
      s("title", {}, text.fabric.layer(index + 1, percent(rate))),
    ),
  );
  const summary = text.fabric.layersSummary(percent(low), percent(high), rates.length);
  return h(
    "div",
    { class: "heat-strip" },
    h("div", { class: "heat-title" }, text.fabric.layers),
    s(
      "svg",
      {
        viewBox: `0 0 ${rates.length} 1`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": summary,
      },
      ...cells,
    ),
    h(
      "div",
      { class: "heat-scale" },
      h("span", {}, text.fabric.layer(1, percent(rates[0] as number))),
      h("span", {}, `${percent(low)} – ${percent(high)}`),
      h(
        "span",
        {},
        text.fabric.layer(rates.length, percent(rates[rates.length - 1] as number)),
      ),
    ),
  );
}

// "12.3 tok/s · first token 45.6 ms · 24 tokens", as far as it is known.
export function statsLine(stats: AnswerStats | undefined): string {
  if (!stats) return "";
  const parts: string[] = [];
  if (stats.tokensPerSecond !== undefined) parts.push(text.chat.rate(stats.tokensPerSecond));
  if (stats.firstTokenSeconds !== undefined) {
    parts.push(text.chat.firstToken(stats.firstTokenSeconds));
  }
  if (stats.usage) parts.push(text.chat.tokens(stats.usage.completion_tokens));
  if (stats.usage?.tern) parts.push(text.fabric.skipped(percent(stats.usage.tern.skip_rate)));
  return parts.join(" · ");
}
