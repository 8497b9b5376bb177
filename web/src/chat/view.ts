// A conversation on the screen: its messages, the running answer, the composer.

import type { Api } from "../api.ts";
import type { Connection } from "../connection.ts";
import {
  type Answer,
  type Conversation,
  type Message,
  chosenAnswer,
  newConversation,
  titleFrom,
} from "../conversation.ts";
import { h, iconButton, on, replace } from "../dom.ts";
import type { Notices } from "../notice.ts";
import type { Store } from "../store.ts";
import { text } from "../text.ts";
import { Answering } from "./answering.ts";
import { Composer } from "./composer.ts";
import { AssistantMessage, userMessage } from "./message_view.ts";

// Nearer to the end than this, the page follows the text.
const FOLLOW_PIXELS = 80;
// What a stream has brought is stored so often, so that a reload loses little.
const SAVE_MS = 1000;

export interface ChatContext {
  api: Api;
  connection: Connection;
  store: Store;
  notices: Notices;
  defaultModel(): string;
  onConversations(): void; // the list has changed
  enterKey(): void;
}

export class ChatView {
  readonly element = h("div", { class: "chat" });
  conversation: Conversation;
  private readonly log = h("div", { class: "log", role: "log", "aria-live": "off", tabindex: -1 });
  private readonly scroller = h("div", { class: "scroller" }, this.log);
  private readonly composer: Composer;
  private readonly jump: HTMLButtonElement;
  private readonly running = new Map<string, Answering>(); // by conversation
  private last: AssistantMessage | null = null;
  private follows = true;
  private frame = 0;

  constructor(private readonly context: ChatContext) {
    this.conversation = newConversation(context.store.settings());
    this.composer = new Composer({
      send: (message) => this.send(message),
      stop: () => this.stop(),
    });
    this.jump = iconButton("down", text.chat.jumpToLatest, () => this.scrollToEnd());
    this.jump.classList.add("jump");
    this.log.setAttribute("aria-label", text.chat.label);
    on(this.scroller, { scroll: () => this.onScroll() });
    this.element.append(this.scroller, this.jump, this.composer.element);
  }

  // null: a new one, which is kept when its first message is sent.
  show(conversation: Conversation | null): void {
    this.conversation = conversation ?? newConversation(this.context.store.settings());
    this.follows = true;
    this.render();
    this.composer.focus();
  }

  focusComposer(): void {
    this.composer.focus();
  }

  get busy(): boolean {
    return this.running.has(this.conversation.id);
  }

  // True when there was something to stop.
  stop(): boolean {
    const answering = this.running.get(this.conversation.id);
    answering?.stop();
    return answering !== undefined;
  }

  // The parameters or the server have changed.
  refresh(): void {
    if (this.conversation.messages.length === 0) this.render();
    this.updateComposer();
  }

  saveSettings(): void {
    if (this.conversation.messages.length > 0) this.save(this.conversation);
  }

  // A conversation was deleted: what runs for it is of no use.
  forget(id: string): void {
    this.running.get(id)?.stop();
  }

  private send(message: string): void {
    const { messages } = this.conversation;
    if (messages.length === 0) this.conversation.title = titleFrom(message);
    messages.push({ role: "user", text: message });
    this.answer();
  }

  private edit(index: number, message: string): void {
    this.stop();
    const { messages } = this.conversation;
    messages.length = index;
    if (index === 0) this.conversation.title = titleFrom(message);
    messages.push({ role: "user", text: message });
    this.answer();
  }

  // Answers the last message of the user.
  private answer(): void {
    const answer = this.emptyAnswer();
    this.conversation.messages.push({ role: "assistant", answers: [answer], chosen: 0 });
    this.follows = true;
    this.start(answer);
  }

  private regenerate(): void {
    const message = this.conversation.messages[this.conversation.messages.length - 1];
    if (message?.role !== "assistant" || this.busy) return;
    const answer = this.emptyAnswer();
    // One that failed before it began is not worth keeping.
    if (chosenAnswer(message)?.text.trim() === "") message.answers.splice(message.chosen, 1);
    message.chosen = message.answers.push(answer) - 1;
    this.start(answer);
  }

  private continueAnswer(): void {
    const message = this.conversation.messages[this.conversation.messages.length - 1];
    const answer = message ? chosenAnswer(message) : null;
    if (answer && !this.busy) this.start(answer);
  }

  private emptyAnswer(): Answer {
    return { text: "", model: this.conversation.model || this.context.defaultModel() };
  }

  private start(answer: Answer): void {
    const { conversation, context } = this;
    const answering = new Answering(context.api, context.connection, conversation, answer);
    this.running.set(conversation.id, answering);
    this.save(conversation);
    this.render();
    context.onConversations();
    let saved = performance.now();
    answering.onUpdate = () => {
      if (performance.now() - saved > SAVE_MS && context.store.get(conversation.id)) {
        saved = performance.now();
        context.store.save(conversation);
      }
      if (this.conversation === conversation) this.scheduleUpdate();
    };
    void answering.run().then(() => this.finished(conversation, answering));
  }

  private finished(conversation: Conversation, answering: Answering): void {
    if (this.running.get(conversation.id) === answering) this.running.delete(conversation.id);
    if (this.context.store.get(conversation.id)) this.save(conversation);
    this.context.onConversations();
    if (this.conversation !== conversation) return;
    this.updateLast();
    this.updateComposer();
    const tokens = answering.answer.stats?.usage?.completion_tokens;
    if (tokens !== undefined) this.context.notices.announce(text.chat.finished(tokens));
  }

  private save(conversation: Conversation): void {
    conversation.updated = Date.now();
    this.context.store.save(conversation);
  }

  private render(): void {
    this.last = null;
    const { messages } = this.conversation;
    if (messages.length === 0) {
      replace(this.log, this.welcome());
    } else {
      replace(this.log, ...messages.map((_, index) => this.messageElement(index)));
    }
    this.element.classList.toggle("empty", messages.length === 0);
    this.updateLast();
    this.updateComposer();
    this.scrollToEnd();
  }

  private messageElement(index: number): HTMLElement {
    const message = this.conversation.messages[index] as Message;
    const actions = {
      edit: (at: number, changed: string) => this.edit(at, changed),
      regenerate: () => this.regenerate(),
      continueAnswer: () => this.continueAnswer(),
      choose: (at: number, answer: number) => this.choose(at, answer),
      enterKey: () => this.context.enterKey(),
    };
    if (message.role === "user") return userMessage(message, index, actions);
    const view = new AssistantMessage(message, index, actions);
    if (index === this.conversation.messages.length - 1) this.last = view;
    view.update(null, view === this.last);
    return view.element;
  }

  private choose(index: number, answer: number): void {
    const message = this.conversation.messages[index];
    if (message?.role !== "assistant" || !message.answers[answer]) return;
    message.chosen = answer;
    this.save(this.conversation);
    this.render();
    const versions = this.log.children[index]?.querySelectorAll<HTMLButtonElement>(".versions button");
    [...(versions ?? [])].find((button) => !button.disabled)?.focus();
  }

  private welcome(): HTMLElement {
    const model = this.conversation.model || this.context.defaultModel();
    const suggestions = text.chat.suggestions.map((suggestion) =>
      on(h("button", { type: "button", class: "suggestion" }, suggestion), {
        click: () => this.send(suggestion),
      }),
    );
    return h(
      "div",
      { class: "welcome" },
      h("h2", {}, text.chat.welcome),
      model ? h("p", {}, text.chat.welcomeModel(model)) : null,
      model.startsWith("tern-demo") ? h("p", { class: "hint" }, text.chat.bundledNote) : null,
      h("div", { class: "suggestions" }, ...suggestions),
    );
  }

  private scheduleUpdate(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.updateLast();
    });
  }

  private updateLast(): void {
    this.last?.update(this.running.get(this.conversation.id) ?? null, true);
    if (this.follows) this.scrollToEnd();
  }

  private updateComposer(): void {
    this.composer.setState(this.busy, true);
  }

  private onScroll(): void {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.follows = scrollHeight - scrollTop - clientHeight < FOLLOW_PIXELS;
    this.jump.hidden = this.follows;
  }

  private scrollToEnd(): void {
    this.follows = true;
    this.jump.hidden = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}
