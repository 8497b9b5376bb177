// The page in a real browser against a real server: chat, stop, edit, regenerate, reconnect, keys,
// hostile answers, keyboard, a phone's width; and its Content-Security-Policy is never violated.
//
// run.sh sets TERN_WEB_{CHROMIUM,BINARY,PLAYWRIGHT,WORK}.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test, { after, before } from "node:test";

import { corpus } from "./injection_corpus.mjs";
import { Proxy, startTern } from "./server.mjs";

const { chromium } = await import(process.env.TERN_WEB_PLAYWRIGHT);
const binary = process.env.TERN_WEB_BINARY;

let browser;
let tern;
let proxy;

before(async () => {
  tern = await startTern(binary);
  proxy = await new Proxy().start(tern.url);
  browser = await chromium.launch({
    executablePath: process.env.TERN_WEB_CHROMIUM,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
});

after(async () => {
  await browser?.close();
  await proxy?.stop();
  await tern?.stop();
});

// Runs `body` with a fresh browser profile. Afterwards nothing may have gone wrong in the page: no
// exception, no violation of the policy, no dialog, no request to another origin.
async function withPage(options, body) {
  const { url = proxy.url, allow = () => false, ...context_options } = options;
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...context_options });
  const page = await context.newPage();
  const wrong = [];
  await page.exposeFunction("reportViolation", (text) => wrong.push(`policy: ${text}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  page.on("pageerror", (error) => wrong.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    // Failed requests are logged by the browser; tests that cause them look at what the page says.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) {
      wrong.push(`console: ${message.text()}`);
    }
  });
  page.on("dialog", (dialog) => {
    if (!allow(dialog)) wrong.push(`dialog: ${dialog.message()}`);
    void dialog.accept();
  });
  page.on("request", (request) => {
    const target = new URL(request.url());
    if (target.origin !== new URL(url).origin && target.protocol !== "blob:") {
      wrong.push(`request: ${request.url()}`);
    }
  });
  page.setDefaultTimeout(20_000);
  try {
    await page.goto(url);
    await body(page, context);
    assert.deepEqual(wrong, []);
  } catch (error) {
    await page.screenshot({ path: path.join(process.env.TERN_WEB_WORK, "failed.png") }).catch(() => {});
    throw error;
  } finally {
    await context.close();
  }
}

const ready = (page) => page.waitForSelector(".model:not([hidden])");
const lastAnswer = (page) => page.locator(".message.assistant").last();
const lastText = (page) => lastAnswer(page).locator(".markdown").innerText();

async function send(page, message) {
  await page.fill("#composer", message);
  await page.press("#composer", "Enter");
}
const answered = (page) =>
  page.waitForSelector(".message.assistant:last-child[aria-busy=false] .foot .tools");

// The answer to every chat request is `text`, in pieces.
async function scriptAnswers(page, text) {
  await page.route("**/v1/chat/completions", (route) => {
    const frames = [];
    const push = (delta, finish_reason = null) =>
      frames.push(`data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason }] })}\n\n`);
    push({ role: "assistant", content: "" });
    for (let at = 0; at < text.length; at += 997) push({ content: text.slice(at, at + 997) });
    push({}, "stop");
    const usage = { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 };
    frames.push(`data: ${JSON.stringify({ choices: [], usage })}\n\n`, "data: [DONE]\n\n");
    return route.fulfill({ contentType: "text/event-stream", body: frames.join("") });
  });
}

async function metric(name) {
  const text = await (await fetch(`${tern.url}/metrics`)).text();
  return text
    .split("\n")
    .filter((line) => line.startsWith(name))
    .reduce((sum, line) => sum + Number(line.split(" ").pop()), 0);
}

async function eventually(condition, what) {
  for (let i = 0; i < 400; ++i) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  assert.fail(what);
}

test("chat: the answer on the screen is the server's", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await page.evaluate(() => navigator.clipboard).catch(() => {});
    await page.keyboard.press("Alt+P");
    await page.fill("#parameter-temperature", "0");
    await page.fill("#parameter-max_tokens", "40");
    await page.keyboard.press("Escape");
    const requests = [];
    page.on("request", (request) => {
      if (request.url().endsWith("/chat/completions")) requests.push(request.postDataJSON());
    });
    await send(page, "Do you like movies?");
    await answered(page);
    const whole = await (await fetch(`${tern.url}/v1/chat/completions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...requests[0], stream: false, stream_options: undefined }),
    })).json();
    assert.equal(await lastText(page), whole.choices[0].message.content.trim());
    const stats = await lastAnswer(page).locator(".stats").innerText();
    assert.match(stats, /first token .* · \d+ tokens/);
    assert.ok(stats.includes(`${whole.usage.completion_tokens} tokens`), stats);

    // A second turn has the first one in it.
    await send(page, "Why?");
    await answered(page);
    assert.deepEqual(requests[1].messages.map((message) => message.role), ["user", "assistant", "user"]);
    assert.equal(requests[1].temperature, 0);

    // It is kept in this browser.
    const before_reload = await page.locator(".log").innerText();
    await page.reload();
    await ready(page);
    assert.equal(await page.locator(".log").innerText(), before_reload);
    assert.equal(await page.locator(".conversation-list a").innerText(), "Do you like movies?");
  });
});

test("the system prompt and the model are sent", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await page.keyboard.press("Alt+P");
    await page.fill("#system", "Answer in one word.");
    await page.keyboard.press("Escape");
    const request = page.waitForRequest((one) => one.url().endsWith("/chat/completions"));
    await send(page, "Hi!");
    const body = (await request).postDataJSON();
    assert.deepEqual(body.messages[0], { role: "system", content: "Answer in one word." });
    assert.equal(body.model, await page.locator(".model").inputValue());
    await answered(page);
  });
});

test("each answer says what the Fabric did for it", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await send(page, "Do you like movies?");
    await answered(page);
    const frames = proxy.lastStream.split("\n\n").filter((line) => line.includes('"usage":{'));
    const { tern: cost, completion_tokens } = JSON.parse(frames[0].slice(6)).usage;
    await page.getByRole("button", { name: "What the Fabric did" }).click();
    const figure = (name) => page.locator(".figures div", { hasText: name }).locator("dd").innerText();
    assert.equal(await figure("Skipped"), `${(cost.skip_rate * 100).toFixed(1)} %`);
    const share = cost.fabric_seconds / (cost.fabric_seconds + cost.host_seconds);
    assert.equal(await figure("Fabric time"), `${(share * 100).toFixed(1)} %`);
    assert.match(await figure("Bytes per token"), /^[\d.]+ MB$/);
    const energy = /^([\d.]+) µJ$/.exec(await figure("Energy proxy"));
    assert.ok(Math.abs(Number(energy[1]) * 1e-6 - cost.energy_proxy_joules) < 0.01 * cost.energy_proxy_joules);
    // One cell for each layer; the strip says the range in words.
    assert.equal(await page.locator(".heat").count(), cost.layer_skip_rates.length);
    assert.match(await page.locator(".heat-strip svg").getAttribute("aria-label"),
      new RegExp(`^${cost.layer_skip_rates.length} layers, from [\\d.]+ % to [\\d.]+ % skipped$`));
    const rate = /^([\d.,]+) tok\/s/.exec(await lastAnswer(page).locator(".stats").innerText());
    const expected = (completion_tokens - 1) / cost.decode_seconds;
    assert.ok(Math.abs(Number(rate[1].replace(",", "")) - expected) <= Math.max(1, 0.01 * expected));
    // It is kept with the conversation.
    await page.reload();
    await ready(page);
    await page.getByRole("button", { name: "What the Fabric did" }).click();
    assert.equal(await page.locator(".heat").count(), cost.layer_skip_rates.length);
  });
});

test("stop: the text stays, and the server stops too", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    proxy.delay = 30;
    const aborted = await metric("tern_request_success_total{finished_reason=\"abort\"");
    await send(page, "Tell me a story about a dog.");
    await page.waitForFunction(() => document.querySelector(".markdown")?.textContent.length > 20);
    await page.click(".send[aria-label=Stop]");
    await page.getByText("Stopped.").waitFor();
    proxy.delay = 0;
    assert.ok((await lastText(page)).length > 10);
    await eventually(async () => (await metric("tern_requests_running")) === 0, "still running");
    // The demo model may have been done before: then there was nothing to stop on the server.
    assert.ok((await metric("tern_request_success_total{finished_reason=\"abort\"")) >= aborted);
    await page.getByRole("button", { name: "Continue" }).click();
    await answered(page);
  });
});

test("regenerate keeps both answers; edit replaces what follows", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await send(page, "Do you like movies?");
    await answered(page);
    const first = await lastText(page);
    await page.getByRole("button", { name: "Regenerate" }).click();
    await page.getByRole("group", { name: "Answer 2 of 2" }).waitFor();
    await answered(page);
    await page.getByRole("button", { name: "Previous answer" }).click();
    await page.getByRole("group", { name: "Answer 1 of 2" }).waitFor();
    assert.equal(await lastText(page), first);

    await page.locator(".message.user").hover();
    await page.getByRole("button", { name: "Edit", exact: true }).click();
    await page.fill(".editor textarea", "What music do you like?");
    await page.press(".editor textarea", "Enter");
    await answered(page);
    assert.equal(await page.locator(".message.user").innerText(), "What music do you like?");
    assert.equal(await page.locator(".message").count(), 2);
    assert.equal(await page.locator(".versions").count(), 0);
  });
});

test("reconnect: an answer that broke off goes on", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    const bodies = [];
    page.on("request", (request) => {
      if (request.url().endsWith("/chat/completions")) bodies.push(request.postDataJSON());
    });
    let before_cut = "";
    proxy.delay = 20;
    proxy.cutAfter = 12;
    proxy.onCut = () => (proxy.down = true);
    await send(page, "Tell me a story about a dog.");
    await page.getByText("The connection was lost. The answer goes on").waitFor();
    before_cut = (await lastText(page)).trimEnd();
    await page.locator(".banner.error").waitFor();
    assert.match(await page.locator(".banner").innerText(), /cannot be reached.*Trying again in \d+ s/s);
    proxy.delay = 0;
    proxy.down = false;
    await answered(page);
    await page.getByText("Connected again.").waitFor();
    assert.equal(await page.locator(".banner").isVisible(), false);
    const text = await lastText(page);
    assert.ok(text.startsWith(before_cut) && text.length >= before_cut.length, text);
    const last = bodies[bodies.length - 1];
    assert.equal(last.continue_final_message, true);
    assert.equal(last.seed, bodies[0].seed);
    assert.equal(last.messages.at(-1).content.replace(/\s+/g, " "), before_cut.replace(/\s+/g, " "));
  });
});

test("an error of the server is said in its words", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await send(page, "word ".repeat(9000));
    await page.locator(".note.error").waitFor();
    assert.match(await page.locator(".note.error").innerText(), /context/i);
    await page.getByRole("button", { name: "Try again" }).waitFor();
  });
});

// What may be in a rendered answer.
const ELEMENTS = new Set(
  ("div p h3 h4 h5 h6 figure figcaption span pre code blockquote ol ul li table thead tbody tr th td hr " +
    "strong em s br a button svg path").split(" "));
const ATTRIBUTES = new Set(
  ("class href title target rel start scope tabindex role type aria-label aria-hidden focusable viewBox d")
    .split(" "));

test("hostile answers stay text", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    const everything = [...corpus, corpus.filter((text) => text.length < 1000).join("\n\n")];
    for (const text of everything) {
      await page.unroute("**/v1/chat/completions");
      await scriptAnswers(page, text);
      await page.keyboard.press("Alt+N");
      await page.locator(".welcome").waitFor();
      await send(page, "go");
      await answered(page);
      const found = await page.evaluate(() => {
        const nodes = [...document.querySelectorAll(".markdown *")];
        return {
          elements: [...new Set(nodes.map((node) => node.localName))],
          attributes: [...new Set(nodes.flatMap((node) => node.getAttributeNames()))],
          links: nodes.filter((node) => node.localName === "a").map((node) => [node.href, node.rel]),
          pwned: window.pwned,
        };
      });
      const shown = JSON.stringify(text.slice(0, 60));
      assert.equal(found.pwned, undefined, shown);
      for (const name of found.elements) assert.ok(ELEMENTS.has(name), `<${name}> from ${shown}`);
      for (const name of found.attributes) assert.ok(ATTRIBUTES.has(name), `${name}= from ${shown}`);
      for (const [href, rel] of found.links) {
        assert.match(href, /^(https?:|mailto:)/, shown);
        assert.match(rel, /noopener/);
      }
    }
  });
});

test("hostile messages, titles and imported files stay text", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await scriptAnswers(page, "ok");
    const evil = "<img src=x onerror=window.pwned=1>";
    await send(page, evil);
    await answered(page);
    assert.equal(await page.locator(".message.user .bubble").innerText(), evil);
    assert.equal(await page.locator(".conversation-list a").innerText(), evil);
    const file = path.join(process.env.TERN_WEB_WORK, "evil.json");
    const conversation = {
      id: "0123456789abcdef01234567",
      title: evil,
      updated: 1,
      model: evil,
      system: evil,
      parameters: {},
      messages: [
        { role: "user", text: evil },
        { role: "assistant", chosen: 0, answers: [{ text: evil, model: evil, end: "error", error: evil }] },
      ],
    };
    fs.writeFileSync(file, JSON.stringify({ format: "tern-conversations", version: 1, conversations: [conversation] }));
    await page.getByRole("button", { name: "Settings" }).click();
    await page.setInputFiles("input[type=file]", file);
    await page.getByText("1 conversation imported.").waitFor();
    await page.goto(`${proxy.url}/#/c/${conversation.id}`);
    await page.locator(".note.error").waitFor();
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    assert.equal(await page.locator("main img").count(), 0);
  });
});

test("the policy holds: inline code and foreign requests are refused", async () => {
  // Not through withPage: here violations are what is wanted.
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(proxy.url);
  const refused = await page.evaluate(async () => {
    const violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
    const outcome = {};
    try {
      document.body.innerHTML = "<b>x</b>";
    } catch (error) {
      outcome.markup = error.name;
    }
    const script = document.createElement("script");
    try {
      script.textContent = "window.ran = 1";
      document.body.appendChild(script);
    } catch (error) {
      outcome.script = error.name;
    }
    outcome.fetch = await fetch("https://example.org/").then(() => "sent", () => "refused");
    const image = new Image();
    await new Promise((resolve) => {
      image.onerror = image.onload = resolve;
      image.src = "https://example.org/x.png";
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    return { ...outcome, ran: window.ran, violations };
  });
  await context.close();
  assert.equal(refused.markup, "TypeError");
  assert.equal(refused.ran, undefined);
  assert.equal(refused.fetch, "refused");
  assert.ok(refused.violations.includes("connect-src"), String(refused.violations));
  assert.ok(refused.violations.includes("img-src"), String(refused.violations));
});

test("a key is asked for, kept for the tab, remembered only when told to", async () => {
  const locked = await startTern(binary, ["--api-key", "sk-right"]);
  try {
    await withPage({ url: locked.url }, async (page, context) => {
      await page.getByText("This server needs an API key.").waitFor();
      await page.locator(".banner").getByRole("button", { name: "Enter the key" }).click();
      await page.fill("#api-key", "sk-wrong");
      await page.press("#api-key", "Enter");
      await page.getByText("The server did not accept the API key.").waitFor();
      await page.locator(".banner").getByRole("button", { name: "Enter the key" }).click();
      await page.fill("#api-key", "sk-right");
      await page.press("#api-key", "Enter");
      await ready(page);
      await send(page, "Hi!");
      await answered(page);
      assert.ok((await lastText(page)).length > 0);
      const kept = () =>
        page.evaluate(() => [JSON.stringify({ ...sessionStorage }), JSON.stringify({ ...localStorage })]);
      let [session, local] = await kept();
      assert.ok(session.includes("sk-right") && !local.includes("sk-right"));
      const other = await context.newPage();
      await other.goto(locked.url);
      await other.getByText("This server needs an API key.").waitFor();
      await other.close();

      await page.getByRole("button", { name: "Settings" }).click();
      await page.getByLabel("Remember on this device").check();
      [session, local] = await kept();
      assert.ok(!session.includes("sk-right") && local.includes("sk-right"));
    });
  } finally {
    await locked.stop();
  }
});

test("a model that loads shows how far it is", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    const state = (status, progress) => ({
      status: status === "ready" ? "ok" : "loading",
      models: [{ id: "big", status, progress }],
      heartbeat_age_seconds: 0,
    });
    let now = state("loading", 0.42);
    await page.route("**/health", (route) =>
      route.fulfill({ status: now.status === "ok" ? 200 : 503, json: now }));
    await page.reload();
    await page.getByText("Loading big: 42 %").waitFor();
    assert.equal(await page.locator("progress").getAttribute("value"), "0.420");
    now = state("ready", 1);
    await ready(page);
    await eventually(async () => !(await page.locator(".banner").isVisible()), "the banner stays");
  });
});

test("the list of models is asked for when a model's state changes, not at every check", async () => {
  const context = await browser.newContext();
  let lists = 0;
  let second = "unloaded";
  await context.route("**/health", (route) => {
    const models = [{ id: "a", status: "ready", progress: 1 }, { id: "b", status: second, progress: 0 }];
    return route.fulfill({ status: 200, json: { status: "ok", models, heartbeat_age_seconds: 0 } });
  });
  await context.route("**/v1/models", async (route) => {
    lists += 1;
    await new Promise((resolve) => setTimeout(resolve, 100)); // checks come while it is under way
    return route.fulfill({ json: { object: "list", data: [{ id: "a" }, { id: "b" }] } });
  });
  const page = await context.newPage();
  try {
    await page.goto(proxy.url);
    await eventually(() => lists > 0, "the list is not asked for");
    const askAgain = () => Promise.all([
      page.waitForResponse("**/health"),
      page.evaluate(() => document.dispatchEvent(new Event("visibilitychange"))),
    ]);
    for (let i = 0; i < 5; ++i) await askAgain();
    second = "ready";
    await askAgain();
    await eventually(() => lists >= 2, "a model that was loaded is not listed anew");
    await page.waitForTimeout(200);
    assert.equal(lists, 2); // one for the page, one for the change
  } finally {
    await context.close();
  }
});

test("keyboard alone: write, stop, panels, new chat, list", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    const focused = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent);
    assert.equal(await focused(), "composer");
    await page.keyboard.type("Hi!");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("How are you?");
    assert.equal(await page.inputValue("#composer"), "Hi!\nHow are you?");
    await page.keyboard.press("Enter");
    await answered(page);

    proxy.delay = 50;
    await page.keyboard.type("Tell me a story about a dog.");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".message.assistant:last-child[aria-busy=true]");
    await page.keyboard.press("Escape");
    await page.getByText("Stopped.").waitFor();
    proxy.delay = 0;

    await page.keyboard.press("Alt+P");
    await page.locator("dialog[open]").waitFor();
    // The focus stays inside.
    for (let i = 0; i < 30; ++i) {
      await page.keyboard.press("Tab");
      const inside = await page.evaluate(() =>
        document.activeElement === document.body || document.activeElement.closest("dialog") !== null);
      assert.ok(inside);
    }
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("dialog[open]").count(), 0);

    await page.keyboard.press("Alt+N");
    await page.locator(".welcome").waitFor();
    assert.equal(await focused(), "composer");
    // Everything can be reached, and the first stop leads over the list.
    const reached = new Set();
    await page.evaluate(() => document.activeElement.blur());
    for (let i = 0; i < 30; ++i) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => {
        const element = document.activeElement;
        return element.getAttribute("aria-label") || element.textContent;
      }));
    }
    for (const name of ["Skip to the message field", "New chat", "Telemetry", "Settings", "Model",
      "Parameters", "Message", "Do you like movies?"]) {
      assert.ok(reached.has(name), `${name} not in ${[...reached].join(", ")}`);
    }
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("/");
    assert.equal(await focused(), "composer");
  });
});

test("screen readers: everything has a name, regions have roles", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await send(page, "Hi!");
    await answered(page);
    await page.locator(".details").click();
    for (const open of [null, "Alt+P", null]) {
      if (open) await page.keyboard.press(open);
      const nameless = await page.evaluate(() =>
        [...document.querySelectorAll("button, a, input, textarea, select, [role=img]")]
          .filter((element) => {
            const label = element.id && document.querySelector(`label[for="${element.id}"]`);
            return !(element.getAttribute("aria-label") || element.textContent.trim() || label ||
              element.closest("label"));
          })
          .map((element) => element.outerHTML));
      assert.deepEqual(nameless, []);
      const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((one) => one.id));
      assert.equal(new Set(ids).size, ids.length);
      if (open) await page.keyboard.press("Escape");
    }
    for (const role of ["navigation", "main", "log"]) {
      assert.equal(await page.getByRole(role).count(), 1, role);
    }
    assert.equal(await page.locator("h1").count(), 1);
    // The end of an answer is said.
    assert.match(await page.locator("div.offscreen[role=status]").innerText(), /The answer is complete: \d+ tokens/);
  });
});

test("a phone's width: nothing is cut off, the menu opens and closes", async () => {
  await withPage({ viewport: { width: 360, height: 720 }, hasTouch: true, isMobile: true }, async (page) => {
    await ready(page);
    await scriptAnswers(page, "A long answer.\n\n```js\nconst " + "x".repeat(200) + " = 1;\n```\n\n" +
      "|a|b|\n|-|-|\n|" + "wide ".repeat(40) + "|y|\n\n" + "w".repeat(300));
    await send(page, "Hi!");
    await answered(page);
    const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth &&
      document.querySelector(".scroller").scrollWidth <= innerWidth);
    assert.ok(await fits());
    const field = await page.locator("#composer").boundingBox();
    assert.ok(field.y + field.height <= 720);

    const menu = page.getByRole("button", { name: "Menu", exact: true });
    assert.equal(await page.locator(".sidebar").evaluate((element) => element.inert), true);
    await menu.tap();
    await page.locator(".menu-open").waitFor();
    await page.getByRole("link", { name: "Hi!" }).waitFor();
    await page.touchscreen.tap(350, 400);
    await eventually(async () => (await page.locator(".menu-open").count()) === 0, "the menu stays");
    for (const button of await page.locator(".top button:visible, .send").all()) {
      const box = await button.boundingBox();
      assert.ok(box.width >= 32 && box.height >= 32, "too small to tap");
    }
  });
});

test("conversations: rename, delete and undo, export, import, delete all", async () => {
  await withPage({ allow: () => true, acceptDownloads: true }, async (page) => {
    await ready(page);
    await send(page, "Do you like movies?");
    await answered(page);
    const link = page.locator(".conversation-list a");
    await link.hover();
    await page.getByRole("button", { name: "Rename “Do you like movies?”" }).click();
    await page.keyboard.type("Movies");
    await page.keyboard.press("Enter");
    assert.equal(await link.innerText(), "Movies");
    await link.hover();
    await page.getByRole("button", { name: "Delete “Movies”" }).click();
    await eventually(async () => (await link.count()) === 0, "not deleted");
    await page.locator(".welcome").waitFor();
    await page.getByRole("button", { name: "Undo" }).click();
    assert.equal(await link.innerText(), "Movies");

    await page.getByRole("button", { name: "Settings" }).click();
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Export all" }).click();
    const file = await (await download).path();
    const exported = JSON.parse(fs.readFileSync(file, "utf8"));
    assert.equal(exported.conversations[0].title, "Movies");
    await page.getByRole("button", { name: "Delete all" }).click();
    await eventually(async () => (await link.count()) === 0, "not deleted");
    await page.getByRole("button", { name: "Settings" }).click();
    await page.setInputFiles("input[type=file]", file);
    await page.getByText("1 conversation imported.").waitFor();
    assert.equal(await link.innerText(), "Movies");
    await link.click();
    await page.locator(".message").nth(1).waitFor();
    assert.equal(await page.locator(".message").count(), 2);
  });
});

test("telemetry: figures and charts follow the server's", async () => {
  await withPage({}, async (page) => {
    await ready(page);
    await page.keyboard.press("Alt+T");
    await page.getByRole("heading", { name: "Telemetry" }).waitFor();
    const tile = (name) => page.locator(".tiles div", { hasText: name }).locator("dd").innerText();
    await page.locator(".tiles div").first().waitFor();
    const body = { messages: [{ role: "user", content: "Tell me a story." }], max_tokens: 60 };
    for (let i = 0; i < 3; ++i) {
      const response = await fetch(`${tern.url}/v1/chat/completions`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
      assert.equal(response.status, 200);
    }
    const total = (await metric("tern_prompt_tokens_total")) + (await metric("tern_generation_tokens_total"));
    await eventually(async () => (await tile("Tokens since start")) === total.toLocaleString("en"), "total");
    assert.match(await tile("Skipped"), /^\d+(\.\d)? %$/);
    assert.match(await tile("Bytes per token"), /^[\d.]+ [kM]B$/);
    assert.match(await tile("Energy per token (proxy)"), /^[\d.]+ [nµm]J$/);
    // Every chart says its values in words, and each has drawn something.
    const labels = await page.locator(".card svg[role=img]").evaluateAll((charts) =>
      charts.map((chart) => chart.getAttribute("aria-label")));
    assert.equal(labels.length, 6);
    for (const label of labels) assert.ok(label.length > 10, label);
    assert.match(labels.join(), /Time to first token. Now: mean [\d.]+ m?s/);
    assert.match(labels.join(), /fabric [\d.]+ %/);
    for (const path of await page.locator("path.line, path.area").all()) {
      assert.doesNotMatch((await path.getAttribute("d")) ?? "", /NaN|undefined|Infinity/);
    }
    assert.ok((await page.locator("rect.cell").count()) > 100);

    // Paused, nothing moves and nothing is asked.
    await page.getByRole("button", { name: "Pause" }).click();
    await page.waitForTimeout(300);
    let scrapes = 0;
    page.on("request", (request) => (scrapes += request.url().endsWith("/metrics") ? 1 : 0));
    await page.waitForTimeout(1500);
    assert.equal(scrapes, 0);
    await page.getByRole("button", { name: "Resume" }).click();
    await eventually(() => scrapes > 0, "not resumed");
    // And not while nobody looks.
    await page.keyboard.press("Alt+N");
    await page.locator(".welcome").waitFor();
    await page.waitForTimeout(300);
    scrapes = 0;
    await page.waitForTimeout(1500);
    assert.equal(scrapes, 0);
  });
});

test("dark and light: what the system says, unless told otherwise", async () => {
  for (const colorScheme of ["light", "dark"]) {
    await withPage({ colorScheme }, async (page) => {
      await ready(page);
      const brightness = () => page.evaluate(() => {
        const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
        return (r + g + b) / 3;
      });
      const light = colorScheme === "light";
      assert.equal((await brightness()) > 128, light);
      await page.getByRole("button", { name: "Settings" }).click();
      await page.getByText(light ? "Dark" : "Light", { exact: true }).click();
      assert.equal((await brightness()) > 128, !light);
      await page.reload();
      await ready(page);
      assert.equal((await brightness()) > 128, !light);
    });
  }
});
