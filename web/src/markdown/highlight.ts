// Colours code a little: comments, strings, numbers and keywords that most languages share. One
// pass, no grammar per language.

import { h } from "../dom.ts";

const HASH_COMMENTS = new Set(
  "python py ruby rb sh bash shell zsh yaml yml toml perl r make makefile dockerfile cmake".split(" "),
);
const DASH_COMMENTS = new Set("sql lua haskell hs ada".split(" "));
const PLAIN = new Set(["", "text", "txt", "console", "output", "markdown", "md", "diff"]);

const KEYWORDS = new Set(
  ("abstract and as assert async await begin break case catch class const continue def default " +
    "del do done elif else end enum esac except export extends extern false fi final finally fn " +
    "for from func function global go goto if impl implements import in inline instanceof int " +
    "interface is lambda let local loop match mod module mut namespace new nil none None nonlocal " +
    "not null or package pass private protected pub public raise return self static struct super " +
    "switch template then this throw trait True False true try type typedef typename typeof union " +
    "unsafe until use using var virtual void volatile when where while with yield select insert " +
    "update delete create table SELECT FROM WHERE INSERT UPDATE DELETE CREATE TABLE JOIN ON AND OR " +
    "auto bool char double float long short unsigned signed size_t string str").split(" "),
);

const MAX_HIGHLIGHTED = 50_000;

export function highlight(code: string, language: string): (Node | string)[] {
  const name = language.toLowerCase();
  if (PLAIN.has(name) || code.length > MAX_HIGHLIGHTED) return [code];
  const comment = HASH_COMMENTS.has(name)
    ? "#[^\\n]*"
    : DASH_COMMENTS.has(name)
      ? "--[^\\n]*"
      : "//[^\\n]*|/\\*[^]*?(?:\\*/|$)";
  const token = new RegExp(
    `(${comment})|("(?:\\\\.|[^"\\\\\\n])*"?|'(?:\\\\.|[^'\\\\\\n])*'?|\`(?:\\\\.|[^\`\\\\])*\`?)` +
      `|\\b(0x[\\da-fA-F]+|\\d[\\d_.]*(?:e[+-]?\\d+)?)\\b|([A-Za-z_]\\w*)`,
    "g",
  );
  const nodes: (Node | string)[] = [];
  let at = 0;
  for (const found of code.matchAll(token)) {
    const kind = found[1]
      ? "comment"
      : found[2]
        ? "string"
        : found[3]
          ? "number"
          : KEYWORDS.has(found[4] as string)
            ? "keyword"
            : null;
    if (!kind) continue;
    nodes.push(code.slice(at, found.index), h("span", { class: `hl-${kind}` }, found[0]));
    at = found.index + found[0].length;
  }
  nodes.push(code.slice(at));
  return nodes;
}
