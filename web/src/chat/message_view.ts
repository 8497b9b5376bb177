// One message: what the user said, with editing, or the answers to it.

import type { Answer, Message } from "../conversation.ts";
import { h, icon, iconButton, on, replace, textButton } from "../dom.ts";
import { MarkdownView, copyText } from "../markdown/render.ts";
import { text } from "../text.ts";
import type { Answering } from "./answering.ts";
import { fabricPanel, statsLine } from "./fabric_panel.ts";

export interface MessageActions {
  edit(index: number, message: string): void;
  regenerate(): void;
  continueAnswer(): void;
  choose(index: number, answer: number): void;
  enterKey(): void;
}

export function userMessage(
  message: Extract<Message, { role: "user" }>,
  index: number,
  actions: MessageActions,
): HTMLElement {
  const element = h("article", { class: "message user", "aria-label": text.chat.user });
  const copy = iconButton("copy", text.chat.copy, () => void copyText(message.text, copy));
  const show = () =>
    replace(
      element,
      h("div", { class: "bubble" }, message.text),
      h("div", { class: "tools" }, copy, iconButton("edit", text.chat.edit, edit)),
    );
  const edit = () => {
    const field = h("textarea", { "aria-label": text.chat.editLabel, rows: 3 });
    field.value = message.text;
    const send = () => {
      const changed = field.value.trim();
      if (changed) actions.edit(index, changed);
    };
    on(field, {
      keydown: (event) => {
        if (event.key === "Escape") {
          event.stopPropagation();
          show();
        }
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          send();
        }
      },
    });
    replace(
      element,
      h(
        "div",
        { class: "editor" },
        field,
        h(
          "div",
          { class: "editor-tools" },
          h("span", { class: "hint" }, text.chat.editNote),
          textButton(text.cancel, show, "quiet"),
          textButton(text.chat.sendEdit, send, "primary"),
        ),
      ),
    );
    field.focus();
  };
  show();
  return element;
}

// The answers to one question; the chosen one is shown.
export class AssistantMessage {
  readonly element = h("article", { class: "message assistant", "aria-label": text.chat.assistant });
  private readonly body = h("div", { class: "body" });
  private readonly foot = h("div", { class: "foot" });
  private readonly panel = h("div", { class: "panel-slot" });
  private markdown = new MarkdownView();
  private shown: Answer | null = null;
  private open = false;

  constructor(
    private readonly message: Extract<Message, { role: "assistant" }>,
    private readonly index: number,
    private readonly actions: MessageActions,
  ) {
    this.element.append(this.body, this.foot, this.panel);
  }

  // running: the answer that is being written, when it is this one. last: nothing follows.
  update(running: Answering | null, last: boolean): void {
    const answer = this.message.answers[this.message.chosen] as Answer;
    if (answer !== this.shown) {
      this.markdown = new MarkdownView();
      this.shown = answer;
    }
    this.markdown.update(answer.text);
    this.element.setAttribute("aria-busy", String(running !== null));
    this.element.classList.toggle("writing", running?.state === "streaming");
    replace(this.body, this.markdown.element, this.note(answer, running));
    replace(this.foot, ...this.tools(answer, running, last));
    const shows = this.open && !running && answer.stats;
    replace(this.panel, shows ? fabricPanel(answer.stats ?? {}) : null);
  }

  private note(answer: Answer, running: Answering | null): HTMLElement | null {
    if (running?.state === "waiting" && !answer.text) {
      return h(
        "p",
        { class: "waiting" },
        h("span", { class: "offscreen" }, text.chat.thinking),
        ...[0, 1, 2].map(() => h("i", { "aria-hidden": "true" })),
      );
    }
    if (running?.state === "reconnecting") {
      return h("p", { class: "note" }, text.chat.reconnecting);
    }
    if (running) return null;
    if (answer.end === "error") return this.errorNote(answer);
    if (answer.end === "stopped") return h("p", { class: "note" }, text.chat.stopped);
    if (answer.end === "length") return h("p", { class: "note" }, text.chat.cut);
    return answer.text.trim() ? null : h("p", { class: "note" }, text.chat.empty);
  }

  private errorNote(answer: Answer): HTMLElement {
    const note = h("p", { class: "note error", role: "alert" }, answer.error ?? "");
    const aboutKey = answer.error === text.errors.needKey || answer.error === text.errors.wrongKey;
    if (aboutKey) {
      note.append(" ", textButton(text.errors.enterKey, () => this.actions.enterKey(), "quiet"));
    }
    return note;
  }

  private tools(answer: Answer, running: Answering | null, last: boolean): (Node | null)[] {
    const line = h("span", { class: "stats" }, statsLine(answer.stats));
    if (running) return [line];
    const copy = iconButton("copy", text.chat.copy, () => void copyText(answer.text, copy));
    const failed = answer.end === "error";
    const again = failed ? text.chat.retry : text.chat.regenerate;
    const tools = h("div", { class: "tools" }, this.versions(), copy);
    if (last) {
      tools.appendChild(iconButton("refresh", again, () => this.actions.regenerate()));
      if (answer.end !== "stop" && answer.text.trim()) {
        tools.appendChild(
          textButton(text.chat.continueAnswer, () => this.actions.continueAnswer(), "quiet small"),
        );
      }
    }
    return [tools, answer.stats?.usage ? this.detailsButton(line, last) : line];
  }

  private detailsButton(line: HTMLElement, last: boolean): HTMLElement {
    const button = h(
      "button",
      { type: "button", class: "details", "aria-expanded": String(this.open) },
      line,
      icon(this.open ? "close" : "chart"),
      h("span", { class: "offscreen" }, text.chat.details),
    );
    button.title = text.chat.details;
    return on(button, {
      click: () => {
        this.open = !this.open;
        this.update(null, last);
        if (this.open) this.panel.scrollIntoView({ block: "nearest" });
        this.foot.querySelector<HTMLElement>(".details")?.focus();
      },
    });
  }

  private versions(): HTMLElement | null {
    const { answers, chosen } = this.message;
    if (answers.length < 2) return null;
    const turn = (to: number) => () => this.actions.choose(this.index, to);
    const previous = iconButton("left", text.chat.previousVersion, turn(chosen - 1));
    const next = iconButton("right", text.chat.nextVersion, turn(chosen + 1));
    previous.disabled = chosen === 0;
    next.disabled = chosen === answers.length - 1;
    const label = text.chat.version(chosen + 1, answers.length);
    return h(
      "div",
      { class: "versions", role: "group", "aria-label": label },
      previous,
      h("span", { "aria-hidden": "true" }, `${chosen + 1}/${answers.length}`),
      next,
    );
  }
}
