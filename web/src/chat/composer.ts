// Where a message is written.

import { h, icon, on, replace, stopIcon } from "../dom.ts";
import { text } from "../text.ts";

const MAX_HEIGHT = 240;

export interface ComposerActions {
  send(message: string): void;
  stop(): void;
}

export class Composer {
  readonly element: HTMLElement;
  private readonly field = h("textarea", {
    id: "composer",
    rows: 1,
    placeholder: text.chat.placeholder,
    "aria-label": text.chat.composerLabel,
    "aria-describedby": "composer-hint",
    autocomplete: "off",
  });
  private readonly button = h("button", { type: "submit", class: "send" });
  private busy = false;
  private enabled = true;

  constructor(private readonly actions: ComposerActions) {
    const form = h("form", { class: "composer" }, this.field, this.button);
    this.element = h(
      "div",
      { class: "composer-area" },
      on(form, {
        submit: (event) => {
          event.preventDefault();
          this.submit();
        },
      }),
      h("p", { id: "composer-hint", class: "hint" }, text.chat.composerHint),
    );
    on(this.field, {
      input: () => this.fit(),
      keydown: (event) => {
        // Enter that ends the composition of a character sends nothing.
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        if (!this.busy) this.submit();
      },
    });
    this.setState(false, true);
  }

  focus(): void {
    this.field.focus();
  }

  setState(busy: boolean, enabled: boolean): void {
    this.busy = busy;
    this.enabled = enabled;
    const label = busy ? text.chat.stop : text.chat.send;
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    replace(this.button, busy ? stopIcon() : icon("send"));
    this.fit();
  }

  private submit(): void {
    if (this.busy) return this.actions.stop();
    const message = this.field.value.trim();
    if (!message || !this.enabled) return;
    this.field.value = "";
    this.fit();
    this.actions.send(message);
  }

  private fit(): void {
    this.button.disabled = !this.busy && (!this.enabled || this.field.value.trim() === "");
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, MAX_HEIGHT)}px`;
  }
}
