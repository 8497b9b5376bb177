// What Markdown becomes before it becomes elements: a closed set of shapes, none of which can hold
// markup, attributes or a script.

export type Inline =
  | { kind: "text"; text: string }
  | { kind: "code"; text: string }
  | { kind: "strong" | "emphasis" | "strike"; children: Inline[] }
  | { kind: "link"; href: string; children: Inline[] } // http, https or mailto
  | { kind: "break" };

export type Alignment = "left" | "center" | "right" | null;

export type Block =
  | { kind: "paragraph"; children: Inline[] }
  | { kind: "heading"; level: number; children: Inline[] }
  | { kind: "code"; language: string; text: string }
  | { kind: "quote"; children: Block[] }
  | { kind: "list"; ordered: boolean; start: number; items: Block[][] }
  | { kind: "table"; align: Alignment[]; head: Inline[][]; rows: Inline[][][] }
  | { kind: "rule" };

// Deeper nesting stays text: what a model writes must not decide how deep we recurse.
export const MAX_DEPTH = 16;
