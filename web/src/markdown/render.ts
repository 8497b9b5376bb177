// Markdown's shapes become elements of fixed kinds with fixed attributes; text becomes text nodes.

import { h, iconButton, on } from "../dom.ts";
import { text } from "../text.ts";
import { parseMarkdown } from "./blocks.ts";
import { highlight } from "./highlight.ts";
import type { Block, Inline } from "./syntax.ts";

// Text that grows: only blocks that changed are made anew, so that a long answer streams cheaply and
// a selection in an earlier paragraph survives.
export class MarkdownView {
  readonly element = h("div", { class: "markdown" });
  private sources: string[] = [];

  update(markdown: string): void {
    const blocks = parseMarkdown(markdown);
    let same = 0;
    while (same < this.sources.length && this.sources[same] === blocks[same]?.source) ++same;
    while (this.element.childNodes.length > same) {
      this.element.removeChild(this.element.lastChild as Node);
    }
    for (const { block } of blocks.slice(same)) this.element.appendChild(renderBlock(block));
    this.sources = blocks.map((block) => block.source);
  }
}

function renderBlock(block: Block): HTMLElement {
  switch (block.kind) {
    case "paragraph":
      return h("p", {}, ...renderInline(block.children));
    case "heading": {
      // The page has its own h1 and h2.
      const level = Math.min(block.level + 2, 6) as 3 | 4 | 5 | 6;
      return h(`h${level}`, {}, ...renderInline(block.children));
    }
    case "code":
      return renderCode(block.language, block.text);
    case "quote":
      return h("blockquote", {}, ...block.children.map(renderBlock));
    case "list": {
      const items = block.items.map((item) => h("li", {}, ...renderItem(item)));
      return block.ordered
        ? h("ol", { start: block.start === 1 ? null : block.start }, ...items)
        : h("ul", {}, ...items);
    }
    case "table":
      return renderTable(block);
    case "rule":
      return h("hr");
  }
}

// An item that is one paragraph needs no <p>.
function renderItem(item: Block[]): Node[] {
  const [first, ...rest] = item;
  if (!first) return [];
  if (first.kind !== "paragraph" || rest.some((block) => block.kind === "paragraph")) {
    return item.map(renderBlock);
  }
  return [...renderInline(first.children), ...rest.map(renderBlock)];
}

function renderTable(table: Extract<Block, { kind: "table" }>): HTMLElement {
  const row = (cells: Inline[][], tag: "th" | "td") =>
    h(
      "tr",
      {},
      ...cells.map((cell, column) => {
        const align = table.align[column];
        const scope = tag === "th" ? "col" : null;
        return h(tag, { scope, class: align ? `align-${align}` : null }, ...renderInline(cell));
      }),
    );
  // Wide tables scroll inside, by keyboard too.
  return h(
    "div",
    { class: "table", tabindex: 0, role: "group" },
    h(
      "table",
      {},
      h("thead", {}, row(table.head, "th")),
      h("tbody", {}, ...table.rows.map((cells) => row(cells, "td"))),
    ),
  );
}

function renderCode(language: string, code: string): HTMLElement {
  const button = iconButton("copy", text.chat.copyCode, () => void copyText(code, button));
  return h(
    "figure",
    { class: "code" },
    h("figcaption", {}, h("span", {}, language || "text"), button),
    h("pre", { tabindex: 0 }, h("code", {}, ...highlight(code, language))),
  );
}

function renderInline(nodes: Inline[]): Node[] {
  return nodes.map((node) => {
    switch (node.kind) {
      case "text":
        return document.createTextNode(node.text);
      case "code":
        return h("code", {}, node.text);
      case "strong":
        return h("strong", {}, ...renderInline(node.children));
      case "emphasis":
        return h("em", {}, ...renderInline(node.children));
      case "strike":
        return h("s", {}, ...renderInline(node.children));
      case "break":
        return h("br");
      case "link":
        // The address shows on hover: what a link says and where it goes may differ.
        return h(
          "a",
          { href: node.href, title: node.href, target: "_blank", rel: "noopener noreferrer nofollow" },
          ...renderInline(node.children),
        );
    }
  });
}

// Copies and says so on the button for a moment.
export async function copyText(value: string, button: HTMLButtonElement): Promise<void> {
  const label = button.getAttribute("aria-label") ?? text.chat.copy;
  let said: string = text.chat.copied;
  try {
    await navigator.clipboard.writeText(value);
  } catch {
    // No clipboard on plain HTTP but for localhost.
    if (!copyBySelection(value)) said = text.chat.copyFailed;
  }
  button.classList.add("done");
  button.setAttribute("aria-label", said);
  button.title = said;
  setTimeout(() => {
    button.classList.remove("done");
    button.setAttribute("aria-label", label);
    button.title = label;
  }, 1500);
}

function copyBySelection(value: string): boolean {
  const area = on(h("textarea", { class: "offscreen", readonly: true, tabindex: -1 }), {});
  area.value = value;
  document.body.appendChild(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
