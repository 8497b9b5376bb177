// Wires the page together: layout, addresses (#/, #/c/ID, #/telemetry), keyboard, server state.

import { Api, ApiError } from "./api.ts";
import { ChatView } from "./chat/view.ts";
import { Connection } from "./connection.ts";
import type { Conversation } from "./conversation.ts";
import { h, iconButton, on, replace, textButton } from "./dom.ts";
import { Notices } from "./notice.ts";
import { ParametersPanel, SettingsPanel } from "./panels.ts";
import { Sidebar } from "./sidebar.ts";
import { Store, type Theme } from "./store.ts";
import { TelemetryView } from "./telemetry/view.ts";
import { text } from "./text.ts";

const NARROW = matchMedia("(max-width: 800px)");

export class App {
  private readonly store = new Store();
  private readonly api = new Api();
  private readonly connection = new Connection(this.api);
  private readonly notices = new Notices();
  private readonly sidebar = new Sidebar({
    create: () => this.newChat(),
    rename: (conversation, title) => this.rename(conversation, title),
    remove: (conversation) => this.remove(conversation),
    openSettings: () => this.settings.open(),
    close: () => this.setMenu(false),
  });
  private readonly chat = new ChatView({
    api: this.api,
    connection: this.connection,
    store: this.store,
    notices: this.notices,
    defaultModel: () => this.models[0] ?? "",
    onConversations: () => this.onConversations(),
    enterKey: () => this.settings.open(true),
  });
  private readonly telemetry = new TelemetryView(this.api);
  private readonly parameters = new ParametersPanel(() => this.chat.saveSettings());
  private readonly settings = new SettingsPanel(this.store, this.notices, {
    setKey: (key, remember) => this.setKey(key, remember),
    setTheme: (theme) => this.setTheme(theme),
    onConversations: () => this.onConversations(),
  });
  private readonly modelSelect = h("select", { "aria-label": text.chat.model, class: "model" });
  private readonly title = h("h1", {});
  private readonly banner = h("div", { class: "banner", role: "status", hidden: true });
  private readonly main = h("main", { id: "main" });
  private readonly chatTools = h("div", { class: "chat-tools" });
  private models: string[] = [];
  private listedStates: string | null = null; // the models' when their list was asked for; null: ask again
  private needsKey = false;
  private wasUnreachable = false;

  start(): void {
    this.api.key = this.store.key().key;
    this.setTheme(this.store.theme());
    this.build();
    this.store.onChange = () => this.onConversations();
    this.store.onFull = () => this.notices.show(text.settings.storageFull);
    this.connection.onChange = () => void this.onConnection();
    window.addEventListener("hashchange", () => this.route());
    document.addEventListener("keydown", (event) => this.onKey(event));
    NARROW.addEventListener("change", () => this.setMenu(false));
    setInterval(() => this.updateBanner(), 1000);
    this.route();
    void this.connection.check();
  }

  private build(): void {
    on(this.modelSelect, {
      change: () => {
        this.chat.conversation.model = this.modelSelect.value;
        this.chat.saveSettings();
        this.chat.refresh();
      },
    });
    const openParameters = () => this.openParameters();
    this.chatTools.append(
      this.modelSelect,
      iconButton("sliders", text.chat.parameters, openParameters),
    );
    const menu = iconButton("menu", text.menu, () => this.setMenu(true));
    menu.classList.add("menu-button");
    menu.setAttribute("aria-controls", "sidebar");
    const skip = h("a", { class: "skip", href: "#composer" }, text.skipToComposer);
    on(skip, {
      click: (event) => {
        event.preventDefault();
        this.chat.focusComposer();
      },
    });
    const shade = on(h("div", { class: "shade" }), { click: () => this.setMenu(false) });
    document.body.append(
      skip,
      this.sidebar.element,
      shade,
      h(
        "div",
        { class: "page" },
        h("header", { class: "top" }, menu, this.title, this.chatTools),
        this.banner,
        this.main,
      ),
      this.parameters.element,
      this.settings.element,
      this.notices.element,
      this.notices.announcer,
    );
    this.setMenu(false);
  }

  private get onTelemetry(): boolean {
    return location.hash === "#/telemetry";
  }

  private route(): void {
    this.setMenu(false);
    const telemetry = this.onTelemetry;
    this.chatTools.hidden = telemetry;
    if (telemetry) {
      replace(this.main, this.telemetry.element);
      this.telemetry.start();
    } else {
      this.telemetry.stop();
      replace(this.main, this.chat.element);
      const id = /^#\/c\/([0-9a-f]{24})$/.exec(location.hash)?.[1] ?? null;
      if (!id || id !== this.chat.conversation.id || !this.store.get(id)) {
        const conversation = id ? this.store.get(id) : null;
        if (id && !conversation) history.replaceState(null, "", "#/");
        this.chat.show(conversation);
      } else {
        this.chat.focusComposer();
      }
    }
    this.update();
  }

  private update(): void {
    const { conversation } = this.chat;
    const title = this.onTelemetry
      ? text.telemetry.title
      : conversation.title || text.newChat;
    this.title.textContent = title;
    document.title = `${title} – ${text.product}`;
    const current = this.onTelemetry ? null : conversation.id;
    this.sidebar.update(this.store.list(), current, this.onTelemetry);
    this.updateModels();
  }

  private updateModels(): void {
    const wanted = this.chat.conversation.model;
    const names = [...this.models];
    if (wanted && !names.includes(wanted)) names.push(wanted);
    replace(this.modelSelect, ...names.map((name) => h("option", { value: name }, name)));
    this.modelSelect.value = wanted || (names[0] ?? "");
    this.modelSelect.hidden = names.length === 0;
  }

  private onConversations(): void {
    const { conversation } = this.chat;
    const kept = this.store.get(conversation.id);
    if (kept && !this.onTelemetry && location.hash !== `#/c/${conversation.id}`) {
      history.replaceState(null, "", `#/c/${conversation.id}`);
    }
    if (!kept && conversation.messages.length > 0) {
      this.chat.forget(conversation.id);
      this.chat.show(null);
      if (!this.onTelemetry) history.replaceState(null, "", "#/");
    }
    this.update();
  }

  private newChat(): void {
    if (location.hash === "#/" || location.hash === "") {
      this.route();
    } else {
      location.hash = "#/";
    }
  }

  private rename(conversation: Conversation, title: string): void {
    conversation.title = title || conversation.title;
    this.store.save(conversation);
    this.update();
  }

  private remove(conversation: Conversation): void {
    this.chat.forget(conversation.id);
    this.store.remove(conversation.id);
    this.onConversations();
    this.notices.show(text.sidebar.removed(conversation.title || text.untitled), {
      label: text.sidebar.undo,
      run: () => {
        this.store.add([conversation]);
        this.update();
      },
    });
  }

  private openParameters(): void {
    if (!this.parameters.element.open) this.parameters.open(this.chat.conversation);
  }

  private setMenu(open: boolean): void {
    document.body.classList.toggle("menu-open", open);
    // On a phone the closed menu is out of reach for keyboards and screen readers too.
    this.sidebar.element.inert = NARROW.matches && !open;
    if (open) this.sidebar.element.querySelector<HTMLElement>("button")?.focus();
  }

  private setKey(key: string, remember: boolean): void {
    this.store.setKey(key, remember);
    this.api.key = key;
    void this.loadModels();
  }

  private setTheme(theme: Theme): void {
    this.store.setTheme(theme);
    if (theme === "system") {
      delete document.documentElement.dataset.theme;
    } else {
      document.documentElement.dataset.theme = theme;
    }
  }

  private async onConnection(): Promise<void> {
    const { reachable, state } = this.connection.link;
    if (reachable && this.wasUnreachable) {
      this.notices.show(text.status.back);
      this.listedStates = null;
    }
    this.wasUnreachable = !reachable;
    // The list may hold models that wait for their first request, so its length says nothing.
    const states = state?.models.map((model) => `${model.id} ${model.status}`).join() ?? "";
    if (reachable && states !== this.listedStates) {
      this.listedStates = states; // before the answer: the next check may come first
      await this.loadModels();
    }
    this.updateBanner();
  }

  private async loadModels(): Promise<void> {
    try {
      this.models = await this.api.models();
      this.needsKey = false;
    } catch (error) {
      this.needsKey = error instanceof ApiError && error.status === 401;
      this.listedStates = null;
    }
    this.updateModels();
    this.chat.refresh();
    this.updateBanner();
  }

  // What keeps the page from working, if anything does.
  private updateBanner(): void {
    const { reachable, state, retryAt } = this.connection.link;
    const loading = state?.models.find((model) => model.status === "loading");
    const failed = state?.models.find((model) => model.status === "failed");
    if (!reachable) {
      const seconds = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
      const words = `${text.errors.network} ${text.errors.retryIn(seconds)}`;
      const retry = textButton(text.errors.retryNow, () => void this.connection.check(), "quiet");
      return this.showBanner("error", words, retry);
    }
    if (loading) {
      const bar = h("progress", { max: 1, value: loading.progress.toFixed(3) });
      bar.setAttribute("aria-label", loading.id);
      const words = text.status.loading(loading.id, Math.round(loading.progress * 100));
      return this.showBanner("info", words, bar);
    }
    if (state?.status === "draining") return this.showBanner("info", text.status.draining);
    if (state?.status === "stalled") return this.showBanner("error", text.status.stalled);
    if (failed) return this.showBanner("error", text.errors.modelFailed(failed.id));
    if (this.needsKey) {
      const words = this.api.key ? text.errors.wrongKey : text.errors.needKey;
      const enter = textButton(text.errors.enterKey, () => this.settings.open(true), "quiet");
      return this.showBanner("info", words, enter);
    }
    this.banner.hidden = true;
    this.banner.dataset.words = "";
  }

  // Unchanged words are left alone: screen readers would hear them again.
  private showBanner(kind: string, words: string, extra?: HTMLElement): void {
    this.banner.hidden = false;
    this.banner.className = `banner ${kind}`;
    if (this.banner.dataset.words === words) return;
    this.banner.dataset.words = words;
    const focused = this.banner.contains(document.activeElement);
    replace(this.banner, h("span", {}, words), extra);
    if (focused) extra?.focus();
  }

  private onKey(event: KeyboardEvent): void {
    const dialog = this.parameters.element.open || this.settings.element.open;
    if (event.key === "Escape" && !dialog && !event.isComposing) {
      if (document.body.classList.contains("menu-open")) return this.setMenu(false);
      this.chat.stop();
      return;
    }
    if (event.altKey && !event.ctrlKey && !event.metaKey && !dialog) {
      // By position: with Alt some layouts give other letters.
      const actions: Record<string, () => void> = {
        KeyN: () => this.newChat(),
        KeyP: () => !this.onTelemetry && this.openParameters(),
        KeyT: () => (location.hash = "#/telemetry"),
      };
      const action = actions[event.code];
      if (!action) return;
      event.preventDefault();
      return action();
    }
    const target = event.target as HTMLElement;
    const writing = /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
    if (event.key === "/" && !writing && !dialog && !this.onTelemetry) {
      event.preventDefault();
      this.chat.focusComposer();
    }
  }
}
