// Dialogs: the parameters of a conversation, and the settings of the page.

import {
  type Conversation,
  DEFAULT_PARAMETERS,
  LIMITS,
  type NumberParameter,
  exportFile,
  importFile,
} from "./conversation.ts";
import { h, iconButton, on, replace, textButton } from "./dom.ts";
import type { Notices } from "./notice.ts";
import type { Store, Theme } from "./store.ts";
import { text } from "./text.ts";

// A modal dialog: the browser keeps the focus inside and closes it on Escape.
function drawer(title: string): { dialog: HTMLDialogElement; body: HTMLElement } {
  const body = h("div", { class: "drawer-body" });
  const dialog: HTMLDialogElement = h(
    "dialog",
    { class: "drawer", "aria-label": title },
    h(
      "header",
      {},
      h("h2", {}, title),
      iconButton("close", text.close, () => dialog.close()),
    ),
    body,
  );
  // A click beside it closes it.
  on(dialog, {
    click: (event) => {
      if (event.target === dialog) dialog.close();
    },
  });
  return { dialog, body };
}

function field(label: string, help: string | null, control: HTMLElement, id: string): HTMLElement {
  control.id = id;
  if (help) control.setAttribute("aria-describedby", `${id}-help`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    control,
    help ? h("p", { class: "hint", id: `${id}-help` }, help) : null,
  );
}

const FIRST: NumberParameter[] = ["temperature", "top_p", "max_tokens", "seed"];
const MORE: NumberParameter[] = [
  "top_k",
  "min_p",
  "repetition_penalty",
  "presence_penalty",
  "frequency_penalty",
];

// What the server uses when a field is empty.
const DEFAULTS: Partial<Record<NumberParameter, string>> = {
  temperature: "1",
  top_p: "1",
  top_k: "0",
  min_p: "0",
  repetition_penalty: "1",
  presence_penalty: "0",
  frequency_penalty: "0",
};

export class ParametersPanel {
  private readonly parts = drawer(text.parameters.title);
  readonly element = this.parts.dialog;

  constructor(private readonly onChange: () => void) {}

  open(conversation: Conversation): void {
    this.fill(conversation);
    this.element.showModal();
  }

  private fill(conversation: Conversation): void {
    const system = h("textarea", { rows: 4, placeholder: text.parameters.systemPlaceholder });
    system.value = conversation.system;
    on(system, {
      input: () => {
        conversation.system = system.value;
        this.onChange();
      },
    });
    const numbers = (names: NumberParameter[]) =>
      names.map((name) => this.numberField(conversation, name));
    const reset = textButton(text.parameters.reset, () => {
      conversation.parameters = { ...DEFAULT_PARAMETERS };
      conversation.system = "";
      this.onChange();
      this.fill(conversation);
    });
    replace(
      this.parts.body,
      field(text.parameters.system, null, system, "system"),
      h("div", { class: "field-grid" }, ...numbers(FIRST)),
      h(
        "details",
        {},
        h("summary", {}, text.parameters.more),
        h("div", { class: "field-grid" }, ...numbers(MORE)),
        this.stopField(conversation),
      ),
      reset,
    );
  }

  private numberField(conversation: Conversation, name: NumberParameter): HTMLElement {
    const [low, high, step] = LIMITS[name];
    const input = h("input", {
      type: "number",
      inputmode: "decimal",
      min: low,
      max: high,
      step: step === 1 ? 1 : "any",
      placeholder: DEFAULTS[name] ?? "",
    });
    const value = conversation.parameters[name];
    input.value = value === undefined ? "" : String(value);
    on(input, {
      input: () => {
        const bad = !input.validity.valid;
        input.setCustomValidity("");
        input.title = bad ? text.parameters.range(low, high) : "";
        input.setAttribute("aria-invalid", String(bad));
        if (bad) return;
        if (input.value === "") {
          delete conversation.parameters[name];
        } else {
          conversation.parameters[name] = Number(input.value);
        }
        this.onChange();
      },
    });
    return field(text.parameters[name], text.parameters[`${name}Help`], input, `parameter-${name}`);
  }

  private stopField(conversation: Conversation): HTMLElement {
    const area = h("textarea", { rows: 2 });
    area.value = (conversation.parameters.stop ?? []).join("\n");
    on(area, {
      input: () => {
        const stop = area.value.split("\n").filter((line) => line !== "").slice(0, 16);
        if (stop.length > 0) {
          conversation.parameters.stop = stop;
        } else {
          delete conversation.parameters.stop;
        }
        this.onChange();
      },
    });
    return field(text.parameters.stop, text.parameters.stopHelp, area, "parameter-stop");
  }
}

export interface SettingsActions {
  setKey(key: string, remember: boolean): void;
  setTheme(theme: Theme): void;
  onConversations(): void;
}

export class SettingsPanel {
  private readonly parts = drawer(text.settings.title);
  readonly element = this.parts.dialog;

  constructor(
    private readonly store: Store,
    private readonly notices: Notices,
    private readonly actions: SettingsActions,
  ) {}

  open(focusKey = false): void {
    replace(
      this.parts.body,
      this.keySection(),
      this.themeSection(),
      this.dataSection(),
      this.keyboardSection(),
    );
    if (!this.element.open) this.element.showModal();
    if (focusKey) this.element.querySelector<HTMLInputElement>("#api-key")?.focus();
  }

  private keySection(): HTMLElement {
    const { key, remembered } = this.store.key();
    const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false" });
    input.value = key;
    const remember = h("input", { type: "checkbox", id: "remember-key" });
    remember.checked = remembered;
    const help = h("p", { class: "hint", id: "api-key-help" });
    const sayWhere = () => {
      help.textContent = remember.checked ? text.settings.keyRememberHelp : text.settings.keyHelp;
    };
    const keep = () => {
      sayWhere();
      this.actions.setKey(input.value.trim(), remember.checked);
    };
    on(input, {
      change: keep,
      keydown: (event) => {
        if (event.key !== "Enter") return;
        // Or the button that has the focus afterwards would hear it too.
        event.preventDefault();
        keep();
        this.element.close();
      },
    });
    on(remember, { change: keep });
    sayWhere();
    const part = field(text.settings.key, null, input, "api-key");
    input.setAttribute("aria-describedby", "api-key-help");
    part.append(
      h("label", { class: "check" }, remember, text.settings.keyRemember),
      help,
    );
    return on(h("form", {}, part), { submit: (event) => event.preventDefault() });
  }

  private themeSection(): HTMLElement {
    const themes: [Theme, string][] = [
      ["system", text.settings.themeSystem],
      ["light", text.settings.themeLight],
      ["dark", text.settings.themeDark],
    ];
    const now = this.store.theme();
    const choices = themes.map(([theme, label]) => {
      const radio = h("input", { type: "radio", name: "theme", value: theme });
      radio.checked = theme === now;
      on(radio, { change: () => this.actions.setTheme(theme) });
      return h("label", {}, radio, h("span", {}, label));
    });
    return h(
      "fieldset",
      { class: "field" },
      h("legend", {}, text.settings.theme),
      h("div", { class: "segments" }, ...choices),
    );
  }

  private dataSection(): HTMLElement {
    const file = h("input", {
      type: "file",
      accept: "application/json,.json",
      class: "offscreen",
      tabindex: -1,
      "aria-label": text.settings.importFile,
    });
    on(file, { change: () => void this.importFrom(file) });
    return h(
      "section",
      { class: "field" },
      h("h3", {}, text.settings.data),
      h("p", { class: "hint" }, text.settings.dataHelp),
      h(
        "div",
        { class: "buttons" },
        textButton(text.settings.exportAll, () => download(exportFile(this.store.list()))),
        textButton(text.settings.importFile, () => file.click()),
        textButton(text.settings.deleteAll, () => this.deleteAll(), "danger"),
      ),
      file,
    );
  }

  private async importFrom(input: HTMLInputElement): Promise<void> {
    const file = input.files?.[0];
    if (!file) return;
    try {
      const conversations = importFile(await file.text());
      this.store.add(conversations);
      this.actions.onConversations();
      this.notices.show(text.settings.imported(conversations.length));
    } catch (error) {
      this.notices.show(text.settings.importFailed(error instanceof Error ? error.message : ""));
    }
    input.value = "";
    this.element.close();
  }

  private deleteAll(): void {
    const all = this.store.list();
    if (all.length === 0 || !confirm(text.settings.deleteAllConfirm(all.length))) return;
    for (const conversation of all) this.store.remove(conversation.id);
    this.actions.onConversations();
    this.element.close();
  }

  private keyboardSection(): HTMLElement {
    return h(
      "section",
      { class: "field" },
      h("h3", {}, text.settings.shortcuts),
      h(
        "dl",
        { class: "shortcuts" },
        ...text.settings.keys.map(([key, what]) =>
          h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)),
        ),
      ),
    );
  }
}

function download(content: string): void {
  const url = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  const link = h("a", { href: url, download: "tern-conversations.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
