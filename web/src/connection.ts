// Whether the server is there: asked often while it is not, or while it loads; seldom otherwise.

import { type Api, ApiError, type ServerState } from "./api.ts";

export interface Link {
  reachable: boolean;
  state: ServerState | null; // what it said last
  retryAt: number; // ms on performance.now(), when not reachable
}

const CALM_MS = 15_000;
const BUSY_MS = 400;
const MAX_RETRY_MS = 15_000;

export class Connection {
  link: Link = { reachable: true, state: null, retryAt: 0 };
  onChange: () => void = () => undefined;
  private failures = 0;
  private timer = 0;
  private waiting: (() => void)[] = [];

  constructor(private readonly api: Api) {
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") void this.check();
    });
    window.addEventListener("online", () => void this.check());
  }

  // Asks now and keeps asking.
  async check(): Promise<void> {
    clearTimeout(this.timer);
    let pause = CALM_MS;
    try {
      const state = await this.api.state();
      this.failures = 0;
      this.link = { reachable: true, state, retryAt: 0 };
      if (state.status === "loading" || state.status === "draining") pause = BUSY_MS;
      if (state.status === "ok") for (const wake of this.waiting.splice(0)) wake();
    } catch (error) {
      this.failures += 1;
      pause = error instanceof ApiError ? CALM_MS : retryMs(this.failures);
      const { state } = this.link;
      this.link = { reachable: false, state, retryAt: performance.now() + pause };
    }
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.check(), pause);
    this.onChange();
  }

  // Until the server takes work again. Errors: the signal's reason.
  ready(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      this.waiting.push(resolve);
      void this.check();
    });
  }
}

function retryMs(failures: number): number {
  return Math.min(MAX_RETRY_MS, 500 * 2 ** Math.min(failures - 1, 6));
}
