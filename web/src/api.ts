// The server's API as this page uses it.

import { SseParser } from "./sse.ts";
import { text } from "./text.ts";

export interface Parameters {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  repetition_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  seed?: number;
  stop?: string[];
}

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface ChatRequest extends Parameters {
  model?: string;
  messages: ChatMessage[];
  add_generation_prompt?: boolean;
  continue_final_message?: boolean;
}

// What the device did for one request (docs/telemetry.md).
export interface TernUsage {
  bytes_per_token: number;
  skip_rate: number;
  fabric_seconds: number;
  host_seconds: number;
  energy_proxy_joules: number;
  first_token_seconds: number;
  decode_seconds: number; // first to last token, on the server's clock
  layer_skip_rates?: number[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number };
  tern?: TernUsage;
}

export type ChatEvent =
  | { kind: "text"; text: string }
  | { kind: "finish"; reason: string }
  | { kind: "usage"; usage: Usage };

export interface ModelState {
  id: string;
  status: "loading" | "ready" | "failed";
  progress: number;
  error?: string;
}

export interface ServerState {
  status: "ready" | "loading" | "draining" | "stalled" | "ok";
  models: ModelState[];
}

// The server answered with an error.
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code: string | null = null,
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

// No answer, or one that broke off.
export class ConnectionError extends Error {}

export class Api {
  key = "";

  // Loading models and shutting down are states, not errors.
  async state(): Promise<ServerState> {
    const response = await this.fetch("/health", {});
    if (response.status !== 200 && response.status !== 503) throw await errorOf(response);
    const state = (await readJson(response)) as Partial<ServerState> | null;
    if (!state || !Array.isArray(state.models)) throw new ConnectionError(text.errors.network);
    return state as ServerState;
  }

  // Names of the models that answer; the first is the default.
  async models(): Promise<string[]> {
    const response = await this.fetch("/v1/models", {});
    if (!response.ok) throw await errorOf(response);
    const list = (await readJson(response)) as { data?: { id: string }[] } | null;
    return (list?.data ?? []).map((model) => model.id);
  }

  async metrics(): Promise<string> {
    const response = await this.fetch("/metrics", {});
    if (!response.ok) throw await errorOf(response);
    return response.text();
  }

  // Errors: ApiError, ConnectionError, and the signal's AbortError.
  async *chat(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatEvent> {
    const body = {
      ...request,
      stream: true,
      stream_options: { include_usage: true },
      tern: { usage: true, layers: true },
    };
    const response = await this.fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    if (!response.ok || !response.body) throw await errorOf(response);
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    const parser = new SseParser();
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((error) => {
          throw signal.aborted ? error : new ConnectionError(text.errors.broken);
        });
        if (done) throw new ConnectionError(text.errors.broken);
        for (const data of parser.push(decoder.decode(value, { stream: true }))) {
          if (data.trim() === "[DONE]") return;
          yield* eventsOf(data);
        }
      }
    } finally {
      reader.cancel().catch(() => undefined);
    }
  }

  private async fetch(path: string, options: RequestInit): Promise<Response> {
    const headers = new Headers(options.headers);
    if (this.key) headers.set("Authorization", `Bearer ${this.key}`);
    try {
      return await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new ConnectionError(text.errors.network);
    }
  }
}

async function readJson(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    return null;
  }
}

async function errorOf(response: Response): Promise<ApiError> {
  const body = (await readJson(response)) as {
    error?: { message?: string; code?: string | null };
  } | null;
  const after = Number(response.headers.get("Retry-After"));
  return new ApiError(
    response.status,
    body?.error?.message ?? text.errors.unreadable(response.status),
    body?.error?.code ?? null,
    after > 0 ? after : null,
  );
}

function* eventsOf(data: string): Generator<ChatEvent> {
  const chunk = JSON.parse(data) as {
    error?: { message: string; code?: string | null };
    choices?: { delta?: { content?: string | null }; finish_reason?: string | null }[];
    usage?: Usage | null;
  };
  if (chunk.error) throw new ApiError(500, chunk.error.message, chunk.error.code ?? null);
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) yield { kind: "text", text: choice.delta.content };
  if (choice?.finish_reason) yield { kind: "finish", reason: choice.finish_reason };
  if (chunk.usage) yield { kind: "usage", usage: chunk.usage };
}
