// Inline Markdown: code, emphasis, strike-through, links. CommonMark's rules for delimiters, in
// linear time; raw HTML is text, and images are links (a fetched image would tell a third party).

import { type Inline, MAX_DEPTH } from "./syntax.ts";

const LINK_PROTOCOLS = new Set(["http:", "https:", "mailto:"]);
const MAX_HREF = 2048;
// Pairing looks back over the delimiters of a paragraph; more of them than anybody writes are text.
const MAX_DELIMITERS = 1000;

// The address when it may be followed, else null. Control characters and spaces, which browsers
// drop from "java\nscript:", make it no address.
export function safeHref(address: string): string | null {
  if (address.length > MAX_HREF || /[\u0000-\u0020\u007f-\u00a0\\<>"`]/.test(address)) return null;
  try {
    const url = new URL(address);
    return LINK_PROTOCOLS.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

interface Delimiter {
  node: number; // index of its text in `nodes`
  mark: string;
  count: number; // left over
  length: number; // at the beginning
  opens: boolean;
  closes: boolean;
}

interface Bracket {
  node: number;
  delimiters: number; // how many came before
  image: boolean;
}

interface Scan {
  source: string;
  at: number;
  nodes: Inline[];
  depths: number[]; // parallel to nodes
  delimiters: Delimiter[];
  brackets: Bracket[];
  backticks: Map<number, number>; // run length -> where its last run begins
}

const PUNCTUATION = /[!-/:-@[-`{-~\u2010-\u2027\u2030-\u205e]/;
const SPACE = /[\s\u00a0]/;

export function parseInline(source: string, depth = 0): Inline[] {
  if (depth > MAX_DEPTH) return [{ kind: "text", text: source }];
  const scan: Scan = {
    source,
    at: 0,
    nodes: [],
    depths: [],
    delimiters: [],
    brackets: [],
    backticks: lastRuns(source),
  };
  while (scan.at < source.length) step(scan);
  pairDelimiters(scan, 0);
  return merge(scan.nodes);
}

function lastRuns(source: string): Map<number, number> {
  const runs = new Map<number, number>();
  for (const run of source.matchAll(/`+/g)) runs.set(run[0].length, run.index ?? 0);
  return runs;
}

function push(scan: Scan, node: Inline, depth = 0): void {
  scan.nodes.push(node);
  scan.depths.push(depth);
}

function pushText(scan: Scan, text: string): void {
  push(scan, { kind: "text", text });
}

function step(scan: Scan): void {
  const { source, at } = scan;
  const c = source[at] as string;
  switch (c) {
    case "\\":
      return escape(scan);
    case "`":
      return codeSpan(scan);
    case "*":
    case "_":
    case "~":
      return delimiterRun(scan, c);
    case "[":
      scan.brackets.push({
        node: scan.nodes.length,
        delimiters: scan.delimiters.length,
        image: false,
      });
      scan.at += 1;
      return pushText(scan, c);
    case "!":
      if (source[at + 1] !== "[") break;
      scan.brackets.push({
        node: scan.nodes.length,
        delimiters: scan.delimiters.length,
        image: true,
      });
      scan.at += 2;
      return pushText(scan, "![");
    case "]":
      return closeBracket(scan);
    case "<":
      return angle(scan);
    case "\n":
      return newline(scan);
    case "h":
      if (bareAddress(scan)) return;
      break;
  }
  const plain = /^[^\\`*_~[\]!<\nh]+/.exec(source.slice(at + 1, at + 4096));
  const text = c + (plain ? plain[0] : "");
  scan.at += text.length;
  pushText(scan, text);
}

function escape(scan: Scan): void {
  const next = scan.source[scan.at + 1];
  if (next === "\n") {
    scan.at += 2;
    return push(scan, { kind: "break" });
  }
  const literal = next !== undefined && /[!-/:-@[-`{-~]/.test(next);
  pushText(scan, literal ? next : "\\");
  scan.at += literal ? 2 : 1;
}

function codeSpan(scan: Scan): void {
  const { source, at } = scan;
  let end = at;
  while (source[end] === "`") ++end;
  const length = end - at;
  // Without a later run of the same length the backticks are text; the map keeps this linear.
  if ((scan.backticks.get(length) ?? -1) >= end) {
    for (let close = source.indexOf("`", end); close >= 0; ) {
      let stop = close;
      while (source[stop] === "`") ++stop;
      if (stop - close === length) {
        let text = source.slice(end, close).replace(/\n/g, " ");
        if (/^ .* $/.test(text) && text.trim() !== "") text = text.slice(1, -1);
        scan.at = stop;
        return push(scan, { kind: "code", text });
      }
      close = source.indexOf("`", stop);
    }
  }
  scan.at = end;
  pushText(scan, source.slice(at, end));
}

function delimiterRun(scan: Scan, mark: string): void {
  const { source, at } = scan;
  let end = at;
  while (source[end] === mark) ++end;
  const length = end - at;
  scan.at = end;
  const before = at === 0 ? " " : (source[at - 1] as string);
  const after = end >= source.length ? " " : (source[end] as string);
  const leftFlanking =
    !SPACE.test(after) && (!PUNCTUATION.test(after) || SPACE.test(before) || PUNCTUATION.test(before));
  const rightFlanking =
    !SPACE.test(before) && (!PUNCTUATION.test(before) || SPACE.test(after) || PUNCTUATION.test(after));
  const word = mark === "_";
  const opens = leftFlanking && (!word || !rightFlanking || PUNCTUATION.test(before));
  const closes = rightFlanking && (!word || !leftFlanking || PUNCTUATION.test(after));
  const room = scan.delimiters.length < MAX_DELIMITERS;
  if (room && (opens || closes) && !(mark === "~" && length > 2)) {
    scan.delimiters.push({ node: scan.nodes.length, mark, count: length, length, opens, closes });
  }
  pushText(scan, source.slice(at, end));
}

// CommonMark's "process emphasis" for the delimiters from `first` on.
function pairDelimiters(scan: Scan, first: number): void {
  const stack = scan.delimiters;
  const bottoms = new Map<string, number>();
  for (let c = first; c < stack.length; ++c) {
    const closer = stack[c] as Delimiter;
    while (closer.closes && closer.count > 0) {
      const kind = `${closer.mark}${closer.length % 3}${closer.opens}`;
      const bottom = Math.max(bottoms.get(kind) ?? first, first);
      let o = c - 1;
      while (o >= bottom && !pairs(stack[o] as Delimiter, closer)) --o;
      if (o < bottom) {
        bottoms.set(kind, c);
        break;
      }
      if (!wrap(scan, stack[o] as Delimiter, closer)) break;
      for (let between = o + 1; between < c; ++between) (stack[between] as Delimiter).count = 0;
    }
  }
  stack.length = first;
}

function pairs(opener: Delimiter, closer: Delimiter): boolean {
  if (opener.mark !== closer.mark || !opener.opens || opener.count === 0) return false;
  if (closer.mark === "~") return opener.count === closer.count;
  const both = opener.closes || closer.opens;
  const third = (opener.length + closer.length) % 3 === 0;
  return !(both && third && (opener.length % 3 !== 0 || closer.length % 3 !== 0));
}

// Moves what is between the two into one node in place of the opener's neighbour. False when that
// would be too deep.
function wrap(scan: Scan, opener: Delimiter, closer: Delimiter): boolean {
  const from = opener.node + 1;
  const to = closer.node;
  let depth = 1;
  const children: Inline[] = [];
  for (let i = from; i < to; ++i) {
    depth = Math.max(depth, (scan.depths[i] as number) + 1);
    if (depth > MAX_DEPTH) return false;
  }
  for (let i = from; i < to; ++i) {
    children.push(scan.nodes[i] as Inline);
    scan.nodes[i] = { kind: "text", text: "" };
    scan.depths[i] = 0;
  }
  const strike = closer.mark === "~";
  const used = strike ? closer.count : opener.count >= 2 && closer.count >= 2 ? 2 : 1;
  for (const end of [opener, closer]) {
    end.count -= used;
    scan.nodes[end.node] = { kind: "text", text: end.mark.repeat(end.count) };
  }
  const kind = strike ? "strike" : used === 2 ? "strong" : "emphasis";
  const node: Inline = { kind, children: merge(children) };
  if (from < to) {
    scan.nodes[from] = node;
    scan.depths[from] = depth;
  }
  return true;
}

function closeBracket(scan: Scan): void {
  const bracket = scan.brackets.pop();
  const target = bracket ? /^\]\(\s*(<[^<>\n]*>|[^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(
    scan.source.slice(scan.at, scan.at + MAX_HREF + 256),
  ) : null;
  const href = target ? safeHref((target[1] as string).replace(/^<|>$/g, "")) : null;
  if (!bracket || !target || href === null) {
    scan.at += 1;
    return pushText(scan, "]");
  }
  pairDelimiters(scan, bracket.delimiters);
  const children = merge(scan.nodes.slice(bracket.node + 1));
  let depth = 1;
  for (let i = bracket.node + 1; i < scan.depths.length; ++i) {
    depth = Math.max(depth, (scan.depths[i] as number) + 1);
  }
  if (depth > MAX_DEPTH) {
    scan.at += 1;
    return pushText(scan, "]");
  }
  scan.nodes.length = scan.depths.length = bracket.node;
  // No links inside links.
  if (!bracket.image) scan.brackets.length = 0;
  scan.at += target[0].length;
  push(scan, { kind: "link", href, children: children.length > 0 ? children : [text(href)] }, depth);
}

function text(value: string): Inline {
  return { kind: "text", text: value };
}

// <https://…>; everything else in angle brackets is text.
function angle(scan: Scan): void {
  const address = /^<((?:https?:\/\/|mailto:)[^<>\s]+)>/.exec(
    scan.source.slice(scan.at, scan.at + MAX_HREF),
  );
  const href = address ? safeHref(address[1] as string) : null;
  if (address && href !== null) {
    scan.at += address[0].length;
    return push(scan, { kind: "link", href, children: [text(address[1] as string)] }, 1);
  }
  scan.at += 1;
  pushText(scan, "<");
}

function bareAddress(scan: Scan): boolean {
  const before = scan.source[scan.at - 1];
  if (before !== undefined && /[\p{L}\p{N}]/u.test(before)) return false;
  const found = /^https?:\/\/[^\s<>"`*\]]+/.exec(scan.source.slice(scan.at, scan.at + MAX_HREF));
  if (!found || scan.brackets.length > 0) return false;
  let address = found[0].replace(/[?!.,:;'")]+$/, (tail) =>
    tail.startsWith(")") && found[0].includes("(") ? ")" : "",
  );
  if (address.endsWith("~")) address = address.replace(/~+$/, "");
  const href = safeHref(address);
  if (href === null) return false;
  scan.at += address.length;
  push(scan, { kind: "link", href, children: [text(address)] }, 1);
  return true;
}

// Two spaces at the end of a line break it. So does a single newline: models mean it.
function newline(scan: Scan): void {
  const last = scan.nodes[scan.nodes.length - 1];
  if (last && last.kind === "text") last.text = last.text.replace(/ +$/, "");
  scan.at += 1;
  while (scan.source[scan.at] === " ") scan.at += 1;
  push(scan, { kind: "break" });
}

// Joins neighbouring texts and drops empty ones.
function merge(nodes: Inline[]): Inline[] {
  const merged: Inline[] = [];
  for (const node of nodes) {
    const last = merged[merged.length - 1];
    if (node.kind === "text" && node.text === "") continue;
    if (node.kind === "text" && last && last.kind === "text") {
      last.text += node.text;
    } else {
      merged.push(node.kind === "text" ? { ...node } : node);
    }
  }
  return merged;
}
