// One answer on its way: sends the conversation, takes the stream, measures, and goes on after a
// lost connection where the answer broke off.

import { type Api, ApiError, type ChatMessage, type ChatRequest, ConnectionError } from "../api.ts";
import type { Connection } from "../connection.ts";
import { type Answer, type Conversation, chosenAnswer } from "../conversation.ts";
import { text } from "../text.ts";

const MAX_RECONNECTS = 3;
// Pieces that come in one burst say nothing about speed.
const SHORTEST_SECONDS = 0.02;
// Random seeds stay small enough to be read out and typed in.
const SEEDS = 2 ** 31;

export class Answering {
  state: "waiting" | "streaming" | "reconnecting" | "done" = "waiting";
  onUpdate: () => void = () => undefined;
  private readonly abort = new AbortController();
  private sent = 0; // ms
  private firstToken = 0;
  private lastToken = 0;
  private tokens = 0;

  // `answer` is the last message's chosen answer, empty or to be continued.
  constructor(
    private readonly api: Api,
    private readonly connection: Connection,
    private readonly conversation: Conversation,
    readonly answer: Answer,
  ) {}

  stop(): void {
    this.abort.abort();
  }

  // Never throws: what goes wrong is in the answer.
  async run(): Promise<void> {
    this.answer.end = undefined;
    this.answer.error = undefined;
    this.answer.stats = { ...this.answer.stats, seed: this.seed() };
    try {
      await this.streamWithReconnects();
    } catch (error) {
      this.fail(error);
    }
    this.answer.end ??= "stop";
    this.measure();
    this.state = "done";
    this.onUpdate();
  }

  // Always an explicit one: with it an answer that broke off goes on as it would have.
  private seed(): number {
    const asked = this.conversation.parameters.seed ?? this.answer.stats?.seed;
    return asked ?? Math.floor(Math.random() * SEEDS);
  }

  private async streamWithReconnects(): Promise<void> {
    for (let attempt = 0; ; ++attempt) {
      try {
        return await this.stream();
      } catch (error) {
        const lost = error instanceof ConnectionError || isTransient(error);
        if (!lost || attempt >= MAX_RECONNECTS) throw error;
        this.state = "reconnecting";
        this.onUpdate();
        await this.connection.ready(this.abort.signal);
      }
    }
  }

  private async stream(): Promise<void> {
    this.sent = performance.now();
    this.tokens = 0;
    this.firstToken = 0;
    for await (const event of this.api.chat(this.request(), this.abort.signal)) {
      if (event.kind === "text") this.take(event.text);
      if (event.kind === "finish") this.answer.end = event.reason === "length" ? "length" : "stop";
      if (event.kind === "usage" && this.answer.stats) this.answer.stats.usage = event.usage;
    }
  }

  private take(piece: string): void {
    const now = performance.now();
    this.firstToken ||= now;
    this.lastToken = now;
    this.tokens += 1;
    this.answer.text += piece;
    this.state = "streaming";
    this.measure();
    this.onUpdate();
  }

  private request(): ChatRequest {
    const { system, parameters, messages } = this.conversation;
    const sent: ChatMessage[] = [];
    if (system.trim()) sent.push({ role: "system", content: system });
    for (const message of messages.slice(0, -1)) {
      const content = message.role === "user" ? message.text : (chosenAnswer(message)?.text ?? "");
      sent.push({ role: message.role, content });
    }
    const request: ChatRequest = {
      ...parameters,
      model: this.answer.model || undefined,
      seed: this.answer.stats?.seed,
      messages: sent,
    };
    const begun = this.answer.text.trimEnd();
    if (begun.trim() === "") return request;
    this.answer.text = begun;
    sent.push({ role: "assistant", content: begun });
    return { ...request, add_generation_prompt: false, continue_final_message: true };
  }

  private fail(error: unknown): void {
    if (this.abort.signal.aborted) {
      this.answer.end = "stopped";
      return;
    }
    this.answer.end = "error";
    const lost = error instanceof ConnectionError;
    this.answer.error = lost ? text.chat.lost : error instanceof Error ? error.message : String(error);
    if (error instanceof ApiError && error.status === 401) {
      this.answer.error = this.api.key ? text.errors.wrongKey : text.errors.needKey;
    }
  }

  private measure(): void {
    const stats = this.answer.stats;
    if (!stats || !this.firstToken) return;
    stats.firstTokenSeconds ??= (this.firstToken - this.sent) / 1000;
    // The server's figures when they are known: a piece of the stream may hold several tokens, and
    // the network brings them in bursts.
    const tokens = stats.usage?.completion_tokens ?? this.tokens;
    const told = stats.usage?.tern?.decode_seconds;
    const seconds = told ?? (this.lastToken - this.firstToken) / 1000;
    const shortest = told === undefined ? SHORTEST_SECONDS : Number.MIN_VALUE;
    if (tokens > 1 && seconds >= shortest) stats.tokensPerSecond = (tokens - 1) / seconds;
  }
}

function isTransient(error: unknown): boolean {
  return error instanceof ApiError && (error.code === "shutting_down" || error.code === "model_loading");
}
