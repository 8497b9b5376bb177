// Makes the pictures of docs/web.md anew: run.sh screenshots WORK_FOLDER TERN_BINARY
import path from "node:path";
import { fileURLToPath } from "node:url";

import { startTern } from "./server.mjs";

const { chromium } = await import(process.env.TERN_WEB_PLAYWRIGHT);
const folder = fileURLToPath(new URL("../../docs/images/", import.meta.url));
const tern = await startTern(process.env.TERN_WEB_BINARY);
const browser = await chromium.launch({
  executablePath: process.env.TERN_WEB_CHROMIUM,
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

const PHONE = { viewport: { width: 390, height: 800 }, isMobile: true, hasTouch: true };
const DESKTOP = { viewport: { width: 1120, height: 760 } };
// As a conversation of its own, so that the picture does not depend on a model's mood.
const MARKDOWN = `A ternary weight is **-1, 0 or +1**, so a product needs no multiplication:

| weight | does |
|---|---|
| +1 | adds the activation |
| 0 | nothing: it is *skipped* |
| -1 | subtracts it |

\`\`\`python
def dot(weights, x):
    total = 0
    for w, value in zip(weights, x):
        if w:                 # zeros cost nothing
            total += value if w > 0 else -value
    return total
\`\`\`
`;

async function shoot(name, options, steps) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(tern.url);
  await page.waitForSelector(".model:not([hidden])");
  await steps(page);
  await page.mouse.move(0, 0);
  await page.waitForTimeout(400);
  await page.screenshot({ path: path.join(folder, `${name}.png`) });
  await context.close();
}

async function ask(page, message) {
  await page.fill("#composer", message);
  await page.press("#composer", "Enter");
  await page.waitForSelector(".message.assistant:last-child[aria-busy=false] .foot .tools");
}

async function talk(page) {
  await page.keyboard.press("Alt+P");
  await page.fill("#parameter-temperature", "0");
  await page.fill("#parameter-max_tokens", "60");
  await page.keyboard.press("Escape");
  await ask(page, "Do you like movies?");
  await ask(page, "Tell me a story about a dog.");
  await page.locator(".details").last().click();
  await page.evaluate(() => document.activeElement.blur());
}

async function showMarkdown(page) {
  await ask(page, "What does a ternary weight do?");
  await page.evaluate((markdown) => {
    const name = Object.keys(localStorage).find((key) => key.startsWith("tern.conversation."));
    const conversation = JSON.parse(localStorage.getItem(name));
    Object.assign(conversation.messages[1].answers[0], { text: markdown, end: "stop" });
    localStorage.setItem(name, JSON.stringify(conversation));
  }, MARKDOWN);
  await page.reload();
  await page.waitForSelector("figure.code");
  await page.evaluate(() => document.activeElement.blur());
}

// Some load, so that there is something to see.
async function load(seconds) {
  for (let i = 0; i < seconds * 2; ++i) {
    for (let k = 0; k < 1 + (i % 5); ++k) {
      void fetch(`${tern.url}/v1/chat/completions`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({
          messages: [{ role: "user", content: `Tell me a story about ${"a big dog ".repeat(k)}.` }],
          max_tokens: 300,
          ignore_eos: true,
        }),
      }).then((response) => response.text());
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

try {
  await shoot("web_chat", DESKTOP, talk);
  await shoot("web_dark", { ...DESKTOP, colorScheme: "dark" }, showMarkdown);
  await shoot("web_phone", PHONE, talk);
  await shoot("web_telemetry", { viewport: { width: 1120, height: 1020 } }, async (page) => {
    await page.keyboard.press("Alt+T");
    await load(20);
  });
} finally {
  await browser.close();
  await tern.stop();
}
