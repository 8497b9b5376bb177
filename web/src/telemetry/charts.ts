// Charts of the last minutes, drawn as SVG: lines, or shares stacked to one. The latest is at the
// right edge; pointing at a chart shows the figures of that moment.

import { h, on, replace, s } from "../dom.ts";
import { text } from "../text.ts";

export interface Line {
  name: string;
  style: "first" | "second" | "third" | "rest";
  values: (number | null)[]; // one per second, oldest first
  shown?: string; // the latest value in words, when it is not just the number
}

const WIDTH = 120;
const HEIGHT = 40;

// The top of a scale that ends at `value`: it and its half have few digits.
function niceTop(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 1.6, 2, 3, 4, 6, 8, 10].find((one) => value <= one * power * 1.0001) ?? 10;
  return factor * power;
}

export class Chart {
  readonly element: HTMLElement;
  private readonly plot = s("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
  });
  private readonly legend = h("ul", { class: "legend" });
  private readonly scale = h("div", { class: "scale", "aria-hidden": "true" });
  private readonly cursor = h("div", { class: "cursor", hidden: true });
  private lines: Line[] = [];
  private pointed: number | null = null; // index into the values

  // lowestTop: the scale goes at least so far. stacked: the values are shares that sum to one.
  constructor(
    private readonly title: string,
    unit: string,
    private readonly format: (value: number) => string,
    private readonly lowestTop: number,
    private readonly stacked = false,
  ) {
    const area = h("div", { class: "plot" }, this.plot, this.scale, this.cursor);
    on(area, {
      pointermove: (event) => this.point(event, area),
      pointerleave: () => this.unpoint(),
    });
    this.element = h(
      "section",
      { class: "card" },
      h("h3", {}, title, h("span", { class: "unit" }, unit)),
      area,
      this.legend,
    );
  }

  update(lines: Line[]): void {
    this.lines = lines;
    const top = this.stacked ? 1 : niceTop(this.highest());
    replace(this.plot, ...this.grid(), ...(this.stacked ? this.areas() : this.paths(top)));
    replace(
      this.scale,
      h("span", {}, this.format(top)),
      h("span", {}, this.format(top / 2)),
      h("span", {}, this.stacked ? "" : "0"),
    );
    const values = lines.map((line) => `${line.name} ${this.valueOf(line, null)}`).join(", ");
    this.plot.setAttribute("aria-label", text.telemetry.shown(this.title, values));
    this.updateLegend();
  }

  private highest(): number {
    let highest = this.lowestTop;
    for (const { values } of this.lines) {
      for (const value of values) highest = Math.max(highest, value ?? 0);
    }
    return highest;
  }

  private grid(): SVGElement[] {
    return [0, 0.5, 1].map((share) =>
      s("line", { x1: 0, x2: WIDTH, y1: share * HEIGHT, y2: share * HEIGHT, class: "grid" }),
    );
  }

  private x(index: number, count: number): number {
    return WIDTH - (count - 1 - index);
  }

  private paths(top: number): SVGElement[] {
    return this.lines.map((line) => {
      let path = "";
      let down = false;
      line.values.forEach((value, index) => {
        if (value === null) {
          down = false;
          return;
        }
        const y = HEIGHT - (Math.min(value, top) / top) * HEIGHT;
        path += `${down ? "L" : "M"}${this.x(index, line.values.length)} ${y.toFixed(2)}`;
        // A lone point is drawn as a short line.
        if (!down && line.values[index + 1] == null) path += "h0.5";
        down = true;
      });
      return s("path", { d: path, class: `line ${line.style}` });
    });
  }

  private areas(): SVGElement[] {
    const count = this.lines[0]?.values.length ?? 0;
    const below = new Array<number>(count).fill(0);
    return this.lines.map((line) => {
      let path = "";
      // One shape per run of known values.
      for (let begin = 0; begin < count; ) {
        if (line.values[begin] == null) {
          begin += 1;
          continue;
        }
        let end = begin;
        let upper = "";
        let lower = "";
        for (; end < count && line.values[end] != null; ++end) {
          const x = this.x(end, count);
          const y = (share: number) => (HEIGHT - Math.min(share, 1) * HEIGHT).toFixed(2);
          lower = `L${x} ${y(below[end] as number)}${lower}`;
          below[end] = (below[end] as number) + (line.values[end] as number);
          upper += `${upper ? "L" : "M"}${x} ${y(below[end] as number)}`;
        }
        path += `${upper}${lower}Z`;
        begin = end;
      }
      return s("path", { d: path, class: `area ${line.style}` });
    });
  }

  private valueOf(line: Line, index: number | null): string {
    if (index === null && line.shown !== undefined) return line.shown;
    const value = line.values[index ?? line.values.length - 1];
    return value === null || value === undefined ? "–" : this.format(value);
  }

  private updateLegend(): void {
    replace(
      this.legend,
      ...this.lines.map((line) =>
        h(
          "li",
          {},
          h("i", { class: line.style, "aria-hidden": "true" }),
          line.name,
          h("b", {}, this.valueOf(line, this.pointed)),
        ),
      ),
    );
  }

  private point(event: PointerEvent, area: HTMLElement): void {
    const count = this.lines[0]?.values.length ?? 0;
    const box = this.plot.getBoundingClientRect();
    const back = Math.round((1 - (event.clientX - box.left) / box.width) * WIDTH);
    const index = count - 1 - back;
    if (index < 0 || index >= count) return this.unpoint();
    this.pointed = index;
    this.cursor.hidden = false;
    this.cursor.style.left = `${box.left - area.getBoundingClientRect().left + (1 - back / WIDTH) * box.width}px`;
    this.cursor.textContent = back === 0 ? "" : `−${back} s`;
    this.updateLegend();
  }

  private unpoint(): void {
    this.pointed = null;
    this.cursor.hidden = true;
    this.updateLegend();
  }
}
