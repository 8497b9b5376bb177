// Block Markdown: paragraphs, headings, fenced code, quotes, lists, tables, rules.

import { parseInline } from "./inline.ts";
import { type Alignment, type Block, MAX_DEPTH } from "./syntax.ts";

// A top-level block and the text that it came from, so that a renderer knows what has not changed.
export interface SourcedBlock {
  block: Block;
  source: string;
}

export function parseMarkdown(source: string): SourcedBlock[] {
  const lines = source.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n");
  const reader = new BlockReader(lines, 0);
  const blocks: SourcedBlock[] = [];
  for (;;) {
    const from = reader.at;
    const block = reader.next();
    if (!block) return blocks;
    blocks.push({ block, source: lines.slice(from, reader.at).join("\n") });
  }
}

const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(\s.*)?$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|(\d{1,9})[.)])( +|$)/;
const TABLE_RULE = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const MAX_COLUMNS = 64;

function isBlank(line: string): boolean {
  return line.trim() === "";
}

class BlockReader {
  at = 0;

  constructor(
    private readonly lines: string[],
    private readonly depth: number,
  ) {}

  all(): Block[] {
    const blocks: Block[] = [];
    for (let block = this.next(); block; block = this.next()) blocks.push(block);
    return blocks;
  }

  next(): Block | null {
    while (this.at < this.lines.length && isBlank(this.line())) ++this.at;
    if (this.at >= this.lines.length) return null;
    const nests = this.depth < MAX_DEPTH;
    return (
      this.fence() ??
      this.heading() ??
      this.rule() ??
      (nests ? (this.quote() ?? this.list()) : null) ??
      this.table() ??
      this.paragraph()
    );
  }

  private line(offset = 0): string {
    return this.lines[this.at + offset] ?? "";
  }

  private fence(): Block | null {
    const open = FENCE.exec(this.line());
    if (!open) return null;
    const [, indent = "", marks = "", info = ""] = open;
    const close = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}\\s*$`);
    const text: string[] = [];
    // An answer that is still being written has no closing fence yet: the rest is code.
    for (++this.at; this.at < this.lines.length; ++this.at) {
      if (close.test(this.line())) {
        ++this.at;
        break;
      }
      text.push(this.line().replace(new RegExp(`^ {0,${indent.length}}`), ""));
    }
    const language = (info.trim().split(/\s/)[0] ?? "").replace(/[^\w+#.-]/g, "").slice(0, 24);
    return { kind: "code", language, text: text.join("\n") };
  }

  private heading(): Block | null {
    const found = HEADING.exec(this.line());
    if (!found) return null;
    ++this.at;
    const words = (found[2] ?? "").trim().split(" ");
    const closed = words.length > 1 && /^#+$/.test(words[words.length - 1] as string);
    const title = (closed ? words.slice(0, -1) : words).join(" ");
    return { kind: "heading", level: (found[1] as string).length, children: parseInline(title) };
  }

  private rule(): Block | null {
    if (!RULE.test(this.line())) return null;
    ++this.at;
    return { kind: "rule" };
  }

  private quote(): Block | null {
    if (!QUOTE.test(this.line())) return null;
    const inner: string[] = [];
    while (this.at < this.lines.length) {
      const line = this.line();
      const continues = inner.length > 0 && !isBlank(line) && !this.beginsBlock(line);
      if (!QUOTE.test(line) && !continues) break;
      inner.push(line.replace(QUOTE, ""));
      ++this.at;
    }
    return { kind: "quote", children: new BlockReader(inner, this.depth + 1).all() };
  }

  private list(): Block | null {
    const first = ITEM.exec(this.line());
    if (!first) return null;
    const ordered = first[3] !== undefined;
    const items: Block[][] = [];
    for (;;) {
      const marker = ITEM.exec(this.line());
      if (!marker || (marker[3] !== undefined) !== ordered || RULE.test(this.line())) break;
      items.push(new BlockReader(this.itemLines(marker), this.depth + 1).all());
      let blanks = 0;
      while (this.at + blanks < this.lines.length && isBlank(this.line(blanks))) ++blanks;
      if (!ITEM.test(this.line(blanks))) break;
      this.at += blanks;
    }
    return { kind: "list", ordered, start: ordered ? Number(first[3]) : 1, items };
  }

  // The lines of one item without their indentation.
  private itemLines(marker: RegExpExecArray): string[] {
    const spaces = (marker[4] as string).length;
    const indent =
      (marker[1] as string).length + (marker[2] as string).length + (spaces > 4 || !spaces ? 1 : spaces);
    const inner = [this.line().slice(indent)];
    let blank = false;
    for (++this.at; this.at < this.lines.length; ++this.at) {
      const line = this.line();
      if (isBlank(line)) {
        // Two in a row, or one before something else, end the item.
        const next = this.line(1);
        if (isBlank(next) || !next.startsWith(" ".repeat(indent))) break;
        blank = true;
        inner.push("");
        continue;
      }
      const indented = line.startsWith(" ".repeat(indent));
      if (!indented && (blank || ITEM.test(line) || this.beginsBlock(line))) break;
      inner.push(indented ? line.slice(indent) : line.trimStart());
      blank = false;
    }
    return inner;
  }

  private table(): Block | null {
    if (!this.line().includes("|") || !TABLE_RULE.test(this.line(1))) return null;
    const head = cells(this.line());
    const align = cells(this.line(1)).map(alignment);
    if (head.length !== align.length || head.length > MAX_COLUMNS) return null;
    const rows: string[][] = [];
    for (this.at += 2; this.at < this.lines.length; ++this.at) {
      const line = this.line();
      if (isBlank(line) || !line.includes("|")) break;
      const row = cells(line).slice(0, head.length);
      while (row.length < head.length) row.push("");
      rows.push(row);
    }
    const parse = (row: string[]) => row.map((cell) => parseInline(cell));
    return { kind: "table", align, head: parse(head), rows: rows.map(parse) };
  }

  private paragraph(): Block {
    const text = [this.line().trim()];
    for (++this.at; this.at < this.lines.length; ++this.at) {
      const line = this.line();
      if (isBlank(line) || this.beginsBlock(line)) break;
      text.push(line.trim());
    }
    return { kind: "paragraph", children: parseInline(text.join("\n")) };
  }

  // Can interrupt a paragraph.
  private beginsBlock(line: string): boolean {
    if (FENCE.test(line) || HEADING.test(line) || RULE.test(line)) return true;
    if (this.depth >= MAX_DEPTH) return false;
    const item = ITEM.exec(line);
    return QUOTE.test(line) || (item !== null && line.trim().length > (item[2] as string).length);
  }
}

// "| a | b |" -> ["a", "b"]; an escaped bar is text.
function cells(line: string): string[] {
  const parts: string[] = [];
  let cell = "";
  for (let i = 0; i < line.length; ++i) {
    if (line[i] === "\\" && line[i + 1] === "|") {
      cell += "|";
      ++i;
    } else if (line[i] === "|") {
      parts.push(cell);
      cell = "";
    } else {
      cell += line[i];
    }
  }
  parts.push(cell);
  const trimmed = parts.map((part) => part.trim());
  if (trimmed[0] === "" && line.trimStart().startsWith("|")) trimmed.shift();
  if (trimmed.length > 1 && trimmed[trimmed.length - 1] === "") trimmed.pop();
  return trimmed;
}

function alignment(rule: string): Alignment {
  const left = rule.startsWith(":");
  const right = rule.endsWith(":");
  if (left && right) return "center";
  return right ? "right" : left ? "left" : null;
}
