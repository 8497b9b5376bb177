// The KV pool as a field of cells, filled from the left: how much is in use, how much is kept for
// reuse. Which block belongs to whom is the scheduler's business, so a cell is an amount.

import { h, replace, s } from "../dom.ts";
import { count, percent } from "../format.ts";
import { text } from "../text.ts";

const COLUMNS = 32;
const ROWS = 8;

export class KvMap {
  readonly element: HTMLElement;
  private readonly plot = s("svg", {
    class: "kv",
    viewBox: `0 0 ${COLUMNS} ${ROWS}`,
    role: "img",
  });
  private readonly legend = h("ul", { class: "legend" });
  private readonly note = h("p", { class: "hint" });
  private cells: SVGRectElement[] = [];

  constructor() {
    this.element = h(
      "section",
      { class: "card" },
      h("h3", {}, text.telemetry.kv),
      this.plot,
      this.legend,
      this.note,
    );
  }

  update(used: number, cached: number, total: number): void {
    const cells = Math.max(1, Math.min(total, COLUMNS * ROWS));
    const perCell = total / cells;
    if (this.cells.length !== cells) this.draw(cells);
    this.cells.forEach((cell, index) => {
      const first = index * perCell;
      const state = first < used ? "used" : first < used + cached ? "cached" : "free";
      cell.setAttribute("class", `cell ${state}`);
    });
    const words = text.telemetry.kvUnit(used, total);
    this.plot.setAttribute("aria-label", `${text.telemetry.kv}: ${words}`);
    this.note.textContent = `${words}. ${text.telemetry.kvCell(Math.round(perCell * 10) / 10)}`;
    const entries: [string, string, string][] = [
      ["used", text.telemetry.kvUsed, total > 0 ? percent(used / total) : "–"],
      ["cached", text.telemetry.kvCached, count(cached)],
      ["free", text.telemetry.kvFree, count(total - used - cached)],
    ];
    replace(
      this.legend,
      ...entries
        .filter(([style]) => style !== "cached" || cached > 0)
        .map(([style, name, value]) =>
          h("li", {}, h("i", { class: style, "aria-hidden": "true" }), name, h("b", {}, value)),
        ),
    );
  }

  private draw(cells: number): void {
    this.cells = Array.from({ length: cells }, (_, index) =>
      s("rect", {
        x: (index % COLUMNS) + 0.08,
        y: Math.floor(index / COLUMNS) + 0.08,
        width: 0.84,
        height: 0.84,
        rx: 0.14,
      }),
    );
    this.plot.setAttribute("viewBox", `0 0 ${COLUMNS} ${Math.ceil(cells / COLUMNS)}`);
    replace(this.plot, ...this.cells);
  }
}
