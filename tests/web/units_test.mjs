// The page's parts that need no browser: Markdown becomes a closed set of harmless shapes in linear
// time, SSE survives any cut, imported files are checked, and Prometheus' text is read.
//
// TERN_WEB_UNITS names a module that exports them (run.sh bundles it).
import assert from "node:assert/strict";
import test from "node:test";

import { corpus } from "./injection_corpus.mjs";

const units = await import(process.env.TERN_WEB_UNITS);
const { parseMarkdown, parseInline, safeHref, SseParser, importFile, exportFile, si, percent } = units;
const { Scrape, Interval, History } = units;

const blocksOf = (text) => parseMarkdown(text).map(({ block }) => block);
const one = (text) => {
  const blocks = blocksOf(text);
  assert.equal(blocks.length, 1, text);
  return blocks[0];
};
const plain = (nodes) =>
  nodes.map((node) => node.text ?? (node.children ? plain(node.children) : "\n")).join("");

// Every node of the tree, checked against the closed set.
const SHAPES = {
  text: ["text"],
  code: ["text", "language"],
  strong: ["children"],
  emphasis: ["children"],
  strike: ["children"],
  link: ["href", "children"],
  break: [],
  paragraph: ["children"],
  heading: ["level", "children"],
  quote: ["children"],
  list: ["ordered", "start", "items"],
  table: ["align", "head", "rows"],
  rule: [],
};
function check(node, depth = 0) {
  assert.ok(depth < 80, "too deep");
  const allowed = SHAPES[node.kind];
  assert.ok(allowed, `unknown kind ${node.kind}`);
  for (const key of Object.keys(node)) assert.ok(key === "kind" || allowed.includes(key), key);
  if (node.kind === "link") assert.match(node.href, /^(https?:\/\/|mailto:)/);
  if (node.kind === "heading") assert.ok(node.level >= 1 && node.level <= 6);
  if (node.kind === "code" && node.language !== undefined) assert.match(node.language, /^[\w+#.-]*$/);
  const nested = [node.children, ...(node.items ?? []), node.head, ...(node.rows ?? [])].flat(3);
  for (const child of nested) if (child) check(child, depth + 1);
}

// A parser that is not linear takes minutes on the long ones: the test's time limit ends it.
test("hostile text becomes harmless shapes", () => {
  for (const text of corpus) {
    for (const block of blocksOf(text)) check(block);
  }
});

test("hostile text is shown, not lost", () => {
  assert.equal(plain(one("<script>alert(1)</script>").children), "<script>alert(1)</script>");
  assert.equal(plain(one("[x](javascript:alert(1))").children), "[x](javascript:alert(1))");
  assert.equal(one("![alt](https://e.org/p.png)").children[0].kind, "link");
});

test("only addresses that a browser may follow are links", () => {
  for (const good of ["https://a.b/c?d=e#f", "http://localhost:8080/", "mailto:a@b.c"]) {
    assert.ok(safeHref(good), good);
  }
  const bad = ["javascript:1", "JAVASCRIPT:1", " https://a.b", "java\nscript:1", "data:text/html,x",
    "//a.b", "/x", "x", "", "vbscript:1", "file:///x", "https://a.b/\"x", "https://", "blob:x",
    `https://a.b/${"x".repeat(3000)}`];
  for (const address of bad) assert.equal(safeHref(address), null, address);
});

test("inline: emphasis, code, links, addresses", () => {
  const kinds = (text) => parseInline(text).map((node) => node.kind).join(" ");
  assert.equal(kinds("a **b** _c_ ~~d~~ `e`"),
    "text strong text emphasis text strike text code");
  assert.equal(kinds("snake_case_name and 2*3*4"), "text emphasis text");
  assert.equal(kinds("snake_case_name"), "text");
  assert.equal(kinds("***both***"), "emphasis");
  assert.equal(parseInline("***both***")[0].children[0].kind, "strong");
  assert.equal(kinds("**open"), "text");
  assert.equal(kinds("\\*no\\*"), "text");
  assert.equal(plain(parseInline("\\*no\\*")), "*no*");
  assert.equal(plain(parseInline("`` a`b ``")), "a`b");
  assert.equal(kinds("a\nb"), "text break text");
  const link = parseInline("see https://example.org/a_b_(c). Next")[1];
  assert.equal(link.href, "https://example.org/a_b_(c)");
  const titled = parseInline('[t](https://example.org "title")')[0];
  assert.equal(titled.href, "https://example.org/");
  assert.equal(kinds("[**b**](https://example.org)"), "link");
});

test("blocks: headings, lists, quotes, code, tables, rules", () => {
  assert.deepEqual(blocksOf("# a\ntext\n\n---\n> q\n> r").map((block) => block.kind),
    ["heading", "paragraph", "rule", "quote"]);
  const list = one("1. a\n2. b\n   - c\n   - d\n3. e");
  assert.equal(list.items.length, 3);
  assert.equal(list.items[1][1].items.length, 2);
  assert.equal(one("3) x\n4) y").start, 3);
  const code = one("```c++\nint a;\n\n# no heading\n```");
  assert.deepEqual([code.language, code.text], ["c++", "int a;\n\n# no heading"]);
  assert.equal(one("```\nstill being written").text, "still being written");
  const table = one("| a | b |\n|:--|--:|\n| 1 | x\\|y |\n| 2 |");
  assert.deepEqual(table.align, ["left", "right"]);
  assert.equal(plain(table.rows[0][1]), "x|y");
  assert.equal(table.rows[1].length, 2);
  assert.equal(one("# closed ##").children[0].text, "closed");
  assert.equal(one("#hashtag").kind, "paragraph");
  assert.equal(blocksOf("a\n\n\n\nb").length, 2);
});

test("a block's source changes only when its text does", () => {
  const text = "# one\n\ntwo *three*\n\n```js\nlet a\n```\n\n- x\n- y\n\nlast";
  const whole = parseMarkdown(text).map(({ source }) => source);
  for (let end = 0; end < text.length; ++end) {
    const part = parseMarkdown(text.slice(0, end)).map(({ source }) => source);
    // All but the last block of a prefix stay as they are.
    for (let i = 0; i + 1 < part.length; ++i) assert.equal(part[i], whole[i]);
  }
});

test("SSE: any cut gives the same events; comments are none", () => {
  const stream = ': ping\n\ndata: {"a":1}\n\ndata:two\r\n\r\ndata: x\ndata: y\n\n: ping\n\ndata: [DONE]\n\n';
  const expected = ['{"a":1}', "two", "x\ny", "[DONE]"];
  for (let cut = 0; cut <= stream.length; ++cut) {
    const parser = new SseParser();
    const events = [...parser.push(stream.slice(0, cut)), ...parser.push(stream.slice(cut))];
    assert.deepEqual(events, expected);
  }
  const parser = new SseParser();
  assert.deepEqual([...stream].flatMap((c) => parser.push(c)), expected);
});

const CONVERSATION = {
  id: "0123456789abcdef01234567",
  title: "t",
  updated: 5,
  model: "m",
  system: "s",
  parameters: { temperature: 0.5, stop: ["x"] },
  messages: [
    { role: "user", text: "hi" },
    { role: "assistant", chosen: 0, answers: [{ text: "yo", model: "m", end: "stop" }] },
  ],
};

test("exported conversations come back as they were", () => {
  const [back] = importFile(exportFile([CONVERSATION]));
  assert.deepEqual(JSON.parse(JSON.stringify(back)), CONVERSATION);
});

test("imported files are checked", () => {
  const refuse = (content, words) => assert.throws(() => importFile(content), words);
  refuse("x", /no JSON/);
  refuse("{}", /no export/);
  refuse("[]", /no export/);
  refuse("null", /no export/);
  const broken = (change) => exportFile([CONVERSATION, { ...CONVERSATION, ...change }]);
  refuse(broken({ messages: "x" }), /conversation 2/);
  refuse(broken({ messages: [{ role: "system", text: "x" }] }), /conversation 2/);
  refuse(broken({ messages: [{ role: "assistant", answers: [], chosen: 0 }] }), /conversation 2/);
  refuse(broken({ title: 5 }), /conversation 2/);
  refuse(broken({ id: "../../x" }), /conversation 2/);
  const odd = { ...CONVERSATION, parameters: { temperature: 99, __proto__: { x: 1 }, evil: 1 }, more: 1 };
  const [read] = importFile(exportFile([odd]));
  assert.deepEqual(read.parameters, {});
  assert.equal(read.more, undefined);
});

test("figures are readable", () => {
  assert.equal(si(0.0123, "s"), "12.3 ms");
  assert.equal(si(2_131_972, "B"), "2.13 MB");
  assert.equal(si(0, "J"), "0 J");
  assert.equal(si(999.96, "B"), "1.00 kB");
  assert.equal(percent(0.6131), "61.3 %");
  assert.equal(percent(1), "100 %");
});

const scrapeOf = (lines, time = 0) => new Scrape(lines.join("\n"), time);

test("Prometheus' text: labels, escapes, sums", () => {
  const scrape = scrapeOf([
    "# HELP a An {odd} help",
    "# TYPE a counter",
    'a{model_name="x",reason="q\\"u}o\\\\te"} 3',
    'a{model_name="y",reason="r"} 4.5e1',
    "b 1",
    "b_bucket{le=\"+Inf\"} 9 1700000000",
    "nonsense",
    "",
  ]);
  assert.equal(scrape.value("a"), 48);
  assert.equal(scrape.value("a", { model_name: "x" }), 3);
  assert.equal(scrape.value("a", { reason: 'q"u}o\\te' }), 3);
  assert.equal(scrape.value("missing"), 0);
  assert.deepEqual(scrape.labelValues("a", "model_name"), ["x", "y"]);
  assert.deepEqual(scrape.buckets("b"), [[Infinity, 9]]);
});

test("rates and quantiles are those of the interval", () => {
  const at = (time, counts, count) =>
    scrapeOf([
      ...[0.01, 0.1, 1].map((le, i) => `h_bucket{le="${le}"} ${counts[i]}`),
      `h_bucket{le="+Inf"} ${count}`,
      `h_sum ${count * 0.05}`,
      `h_count ${count}`,
    ], time);
  const interval = new Interval(at(10, [5, 5, 5], 5), at(14, [5, 15, 25], 25));
  assert.equal(interval.rate("h_count"), 5);
  assert.ok(Math.abs(interval.mean("h", {}) - 0.05) < 1e-12);
  // 20 observations: 10 in (0.01, 0.1], 10 in (0.1, 1].
  const quantile = (q) => interval.quantile("h", q, {}).value;
  assert.ok(Math.abs(quantile(0.5) - 0.1) < 1e-12);
  assert.ok(Math.abs(quantile(0.25) - 0.055) < 1e-12);
  assert.ok(Math.abs(quantile(0.95) - 0.91) < 1e-12);
  const first = new Interval(at(0, [0, 0, 0], 0), at(1, [9, 9, 9], 9)).quantile("h", 0.95, {});
  assert.deepEqual(first, { value: 0.01, atMost: true });
  const beyond = new Interval(at(0, [0, 0, 0], 0), at(1, [0, 0, 0], 9)).quantile("h", 0.5, {});
  assert.deepEqual(beyond, { value: 1, atMost: false });
  assert.equal(new Interval(at(0, [1, 1, 1], 1), at(1, [1, 1, 1], 1)).quantile("h", 0.5, {}), null);
});

test("a history forgets what was before a restart", () => {
  const history = new History();
  const add = (time, start, value) =>
    history.add(scrapeOf([`process_start_time_seconds ${start}`, `c ${value}`], time));
  for (let second = 0; second < 200; ++second) add(second, 1, second * 2);
  assert.equal(history.length, 121);
  assert.equal(history.last(60).seconds, 60);
  assert.equal(history.last(60).rate("c"), 2);
  assert.deepEqual(new Set(history.map(1, (interval) => interval.rate("c"))), new Set([2]));
  add(200, 2, 0);
  assert.equal(history.length, 1);
  assert.equal(history.last(60), null);
});
