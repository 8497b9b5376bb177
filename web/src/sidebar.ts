// The list of conversations, and the ways to telemetry and settings.

import type { Conversation } from "./conversation.ts";
import { h, icon, iconButton, on, replace } from "./dom.ts";
import { text } from "./text.ts";

export interface SidebarActions {
  create(): void;
  rename(conversation: Conversation, title: string): void;
  remove(conversation: Conversation): void;
  openSettings(): void;
  close(): void;
}

const DAY_MS = 86_400_000;

export class Sidebar {
  readonly element: HTMLElement;
  private readonly list = h("div", { class: "conversation-list" });
  private readonly telemetry = h(
    "a",
    { class: "sidebar-link", href: "#/telemetry" },
    icon("pulse"),
    text.sidebar.telemetry,
  );

  constructor(private readonly actions: SidebarActions) {
    const create = h("button", { type: "button", class: "new-chat" }, icon("plus"), text.newChat);
    const settings = h("button", { type: "button", class: "sidebar-link" }, icon("gear"));
    settings.append(text.sidebar.settings);
    this.element = h(
      "nav",
      { class: "sidebar", id: "sidebar", "aria-label": text.sidebar.label },
      h(
        "div",
        { class: "sidebar-top" },
        h("span", { class: "brand" }, brandMark(), text.product),
        iconButton("close", text.closeMenu, () => actions.close()),
      ),
      on(create, { click: () => actions.create() }),
      this.list,
      h(
        "div",
        { class: "sidebar-bottom" },
        this.telemetry,
        on(settings, { click: () => actions.openSettings() }),
      ),
    );
  }

  update(conversations: Conversation[], current: string | null, telemetry: boolean): void {
    this.telemetry.toggleAttribute("aria-current", telemetry);
    if (conversations.length === 0) {
      return replace(this.list, h("p", { class: "hint" }, text.sidebar.empty));
    }
    const groups = new Map<string, Conversation[]>();
    for (const conversation of conversations) {
      const name = ageOf(conversation.updated);
      groups.set(name, [...(groups.get(name) ?? []), conversation]);
    }
    replace(
      this.list,
      ...[...groups].map(([name, members]) =>
        h(
          "section",
          {},
          h("h2", {}, name),
          h("ul", {}, ...members.map((member) => this.row(member, member.id === current))),
        ),
      ),
    );
  }

  private row(conversation: Conversation, current: boolean): HTMLElement {
    const title = conversation.title || text.untitled;
    const link = h(
      "a",
      { href: `#/c/${conversation.id}`, title, "aria-current": current ? "page" : null },
      title,
    );
    const row = h(
      "li",
      { class: current ? "current" : null },
      link,
      iconButton("edit", text.sidebar.rename(title), () => this.rename(row, conversation)),
      iconButton("trash", text.sidebar.remove(title), () => this.actions.remove(conversation)),
    );
    return row;
  }

  private rename(row: HTMLElement, conversation: Conversation): void {
    const input = h("input", { type: "text", "aria-label": text.sidebar.renamePrompt });
    input.value = conversation.title;
    let ended = false;
    const end = (keep: boolean) => {
      if (ended) return;
      ended = true;
      this.actions.rename(conversation, keep ? input.value.trim() : conversation.title);
    };
    on(input, {
      blur: () => end(true),
      keydown: (event) => {
        if (event.key === "Enter") end(true);
        if (event.key === "Escape") end(false);
        event.stopPropagation();
      },
    });
    replace(row, input);
    input.select();
    input.focus();
  }
}

function ageOf(updated: number): string {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (updated >= midnight) return text.sidebar.today;
  return updated >= midnight - 6 * DAY_MS ? text.sidebar.week : text.sidebar.older;
}

// -1, 0 and +1.
function brandMark(): HTMLElement {
  return h(
    "span",
    { class: "brand-mark", "aria-hidden": "true" },
    h("i", { class: "minus" }),
    h("i", { class: "zero" }),
    h("i", { class: "plus" }),
  );
}
