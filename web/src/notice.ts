// Short messages at the edge of the page, which screen readers hear too.

import { h, textButton } from "./dom.ts";

const SHOWN_MS = 6000;

export class Notices {
  readonly element = h("div", { class: "notices", role: "status", "aria-live": "polite" });
  // Heard but not seen.
  readonly announcer = h("div", { class: "offscreen", role: "status", "aria-live": "polite" });

  show(message: string, action?: { label: string; run: () => void }): void {
    const notice = h("div", { class: "notice" }, h("span", {}, message));
    if (action) {
      const run = () => {
        notice.remove();
        action.run();
      };
      notice.appendChild(textButton(action.label, run, "quiet"));
    }
    this.element.appendChild(notice);
    setTimeout(() => notice.remove(), SHOWN_MS);
  }

  announce(message: string): void {
    this.announcer.textContent = message;
  }
}
