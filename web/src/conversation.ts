// Conversations as this browser keeps them, and as files.

import type { Parameters, Usage } from "./api.ts";
import { text } from "./text.ts";

export interface AnswerStats {
  firstTokenSeconds?: number; // on this browser's clock, from the request
  tokensPerSecond?: number;
  seed?: number;
  usage?: Usage;
}

export interface Answer {
  text: string;
  model: string;
  // Absent while it is being written.
  end?: "stop" | "length" | "stopped" | "error";
  error?: string;
  stats?: AnswerStats;
}

export type Message =
  | { role: "user"; text: string }
  | { role: "assistant"; answers: Answer[]; chosen: number };

export interface Conversation {
  id: string;
  title: string;
  updated: number; // ms since 1970
  model: string; // empty: the server's default
  system: string;
  parameters: Parameters;
  messages: Message[];
}

export type Settings = Pick<Conversation, "model" | "system" | "parameters">;

// Cooler than the server's 1: small models stay on their topic.
export const DEFAULT_PARAMETERS: Parameters = { temperature: 0.6 };

export const LIMITS = {
  temperature: [0, 2, 0.05],
  top_p: [0.01, 1, 0.01],
  top_k: [0, 1000, 1],
  min_p: [0, 1, 0.01],
  max_tokens: [1, 1_000_000, 1],
  repetition_penalty: [0.01, 2, 0.01],
  presence_penalty: [-2, 2, 0.1],
  frequency_penalty: [-2, 2, 0.1],
  seed: [0, Number.MAX_SAFE_INTEGER, 1],
} as const;

export type NumberParameter = keyof typeof LIMITS;

export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(settings: Settings): Conversation {
  return {
    id: newId(),
    title: "",
    updated: Date.now(),
    model: settings.model,
    system: settings.system,
    parameters: { ...settings.parameters },
    messages: [],
  };
}

export function chosenAnswer(message: Message): Answer | null {
  return message.role === "assistant" ? (message.answers[message.chosen] ?? null) : null;
}

// The first words of what was asked first.
export function titleFrom(message: string): string {
  const line = message.trim().replace(/\s+/g, " ");
  return line.length <= 60 ? line : `${line.slice(0, 57).replace(/\s\S*$/, "")}…`;
}

// A file of conversations is somebody else's until it is checked.

const FORMAT = "tern-conversations";
const MAX_FILE = 20_000_000;

export function exportFile(conversations: Conversation[]): string {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

// Errors: Error with a sentence's end.
export function importFile(content: string): Conversation[] {
  if (content.length > MAX_FILE) throw new Error(text.importErrors.tooLarge);
  let file: unknown;
  try {
    file = JSON.parse(content);
  } catch {
    throw new Error(text.importErrors.notJson);
  }
  const envelope = record(file);
  if (envelope?.format !== FORMAT || !Array.isArray(envelope.conversations)) {
    throw new Error(text.importErrors.notOurs);
  }
  return envelope.conversations.map((value, index) => {
    const conversation = readConversation(value);
    if (!conversation) throw new Error(text.importErrors.broken(index + 1));
    return conversation;
  });
}

// null when something in it is not what it should be.
export function readConversation(value: unknown): Conversation | null {
  const source = record(value);
  if (!source || !Array.isArray(source.messages)) return null;
  if (!isString(source.id) || !/^[0-9a-f]{24}$/.test(source.id)) return null;
  if (!isString(source.title) || !isString(source.model) || !isString(source.system)) return null;
  const messages = source.messages.map(readMessage);
  if (messages.includes(null) || !isNumber(source.updated)) return null;
  return {
    id: source.id,
    title: source.title.slice(0, 200),
    updated: source.updated,
    model: source.model,
    system: source.system,
    parameters: readParameters(source.parameters),
    messages: messages as Message[],
  };
}

function readMessage(value: unknown): Message | null {
  const source = record(value);
  if (source?.role === "user" && isString(source.text)) return { role: "user", text: source.text };
  if (source?.role !== "assistant" || !Array.isArray(source.answers)) return null;
  const answers = source.answers.map(readAnswer);
  const chosen = source.chosen;
  if (answers.includes(null) || !isNumber(chosen) || !answers[chosen]) return null;
  return { role: "assistant", answers: answers as Answer[], chosen };
}

function readAnswer(value: unknown): Answer | null {
  const source = record(value);
  if (!source || !isString(source.text) || !isString(source.model)) return null;
  const end = (["stop", "length", "stopped", "error"] as const).find((name) => name === source.end);
  return {
    text: source.text,
    model: source.model,
    end: end ?? "stopped",
    error: isString(source.error) ? source.error : undefined,
    stats: readStats(source.stats),
  };
}

function readStats(value: unknown): AnswerStats | undefined {
  const source = record(value);
  if (!source) return undefined;
  const usage = record(source.usage);
  const tern = record(usage?.tern);
  const rates = tern?.layer_skip_rates;
  const figure = (from: Record<string, unknown>, name: string) =>
    isNumber(from[name]) ? (from[name] as number) : 0;
  return {
    firstTokenSeconds: optional(source.firstTokenSeconds),
    tokensPerSecond: optional(source.tokensPerSecond),
    seed: optional(source.seed),
    usage: usage
      ? {
          prompt_tokens: figure(usage, "prompt_tokens"),
          completion_tokens: figure(usage, "completion_tokens"),
          prompt_tokens_details: {
            cached_tokens: figure(record(usage.prompt_tokens_details) ?? {}, "cached_tokens"),
          },
          tern: tern
            ? {
                bytes_per_token: figure(tern, "bytes_per_token"),
                skip_rate: figure(tern, "skip_rate"),
                fabric_seconds: figure(tern, "fabric_seconds"),
                host_seconds: figure(tern, "host_seconds"),
                energy_proxy_joules: figure(tern, "energy_proxy_joules"),
                first_token_seconds: figure(tern, "first_token_seconds"),
                decode_seconds: figure(tern, "decode_seconds"),
                layer_skip_rates:
                  Array.isArray(rates) && rates.length <= 1000 && rates.every(isNumber)
                    ? rates
                    : undefined,
              }
            : undefined,
        }
      : undefined,
  };
}

export function readParameters(value: unknown): Parameters {
  const source = record(value) ?? {};
  const parameters: Parameters = {};
  for (const name of Object.keys(LIMITS) as NumberParameter[]) {
    const figure = source[name];
    const [low, high] = LIMITS[name];
    if (isNumber(figure) && figure >= low && figure <= high) parameters[name] = figure;
  }
  if (Array.isArray(source.stop) && source.stop.length <= 16 && source.stop.every(isString)) {
    parameters.stop = source.stop;
  }
  return parameters;
}

function record(value: unknown): Record<string, unknown> | null {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : null;
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function optional(value: unknown): number | undefined {
  return isNumber(value) ? value : undefined;
}
