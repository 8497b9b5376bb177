// What stays in the browser: conversations (localStorage, one item each), the settings of the last
// one, the appearance, and the API key (sessionStorage unless it is to be remembered).

import {
  type Conversation,
  DEFAULT_PARAMETERS,
  type Settings,
  newId,
  readConversation,
  readParameters,
} from "./conversation.ts";

const PREFIX = "tern.conversation.";
const SETTINGS = "tern.settings";
const THEME = "tern.theme";
const KEY = "tern.key";

export type Theme = "system" | "light" | "dark";

export class Store {
  private readonly conversations = new Map<string, Conversation>();
  // Called when another tab has changed something.
  onChange: () => void = () => undefined;
  // The browser's storage takes no more.
  onFull: () => void = () => undefined;

  constructor() {
    this.load();
    window.addEventListener("storage", (event) => {
      if (!event.key?.startsWith(PREFIX)) return;
      this.take(event.key, event.newValue);
      this.onChange();
    });
  }

  // The latest first.
  list(): Conversation[] {
    return [...this.conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  get(id: string): Conversation | null {
    return this.conversations.get(id) ?? null;
  }

  save(conversation: Conversation): void {
    this.conversations.set(conversation.id, conversation);
    this.write(PREFIX + conversation.id, JSON.stringify(conversation));
    const { model, system, parameters } = conversation;
    this.write(SETTINGS, JSON.stringify({ model, system, parameters }));
  }

  remove(id: string): void {
    this.conversations.delete(id);
    remove(localStorage, PREFIX + id);
  }

  // One that is here already is kept, and the imported one gets a new id.
  add(conversations: Conversation[]): void {
    for (const conversation of conversations) {
      if (this.conversations.has(conversation.id)) conversation.id = newId();
      this.conversations.set(conversation.id, conversation);
      this.write(PREFIX + conversation.id, JSON.stringify(conversation));
    }
  }

  // Of the conversation that was saved last.
  settings(): Settings {
    const source = parse(read(localStorage, SETTINGS)) as Partial<Settings> | null;
    return {
      model: typeof source?.model === "string" ? source.model : "",
      system: typeof source?.system === "string" ? source.system : "",
      parameters: source ? readParameters(source.parameters) : { ...DEFAULT_PARAMETERS },
    };
  }

  theme(): Theme {
    const theme = read(localStorage, THEME);
    return theme === "light" || theme === "dark" ? theme : "system";
  }

  setTheme(theme: Theme): void {
    this.write(THEME, theme);
  }

  key(): { key: string; remembered: boolean } {
    const remembered = read(localStorage, KEY);
    return { key: remembered ?? read(sessionStorage, KEY) ?? "", remembered: remembered !== null };
  }

  setKey(key: string, remember: boolean): void {
    remove(localStorage, KEY);
    remove(sessionStorage, KEY);
    if (key === "") return;
    try {
      (remember ? localStorage : sessionStorage).setItem(KEY, key);
    } catch {
      this.onFull();
    }
  }

  private load(): void {
    try {
      for (let i = 0; i < localStorage.length; ++i) {
        const name = localStorage.key(i);
        if (name?.startsWith(PREFIX)) this.take(name, localStorage.getItem(name));
      }
    } catch {
      // Storage is switched off: conversations live as long as the page.
    }
  }

  private take(name: string, value: string | null): void {
    const id = name.slice(PREFIX.length);
    const conversation = readConversation(parse(value));
    if (conversation && conversation.id === id) {
      this.conversations.set(id, conversation);
    } else {
      this.conversations.delete(id);
    }
  }

  private write(name: string, value: string): void {
    try {
      localStorage.setItem(name, value);
    } catch {
      this.onFull();
    }
  }
}

function parse(value: string | null): unknown {
  try {
    return value === null ? null : JSON.parse(value);
  } catch {
    return null;
  }
}

function read(storage: Storage, name: string): string | null {
  try {
    return storage.getItem(name);
  } catch {
    return null;
  }
}

function remove(storage: Storage, name: string): void {
  try {
    storage.removeItem(name);
  } catch {
    // Switched off: there is nothing to remove.
  }
}
