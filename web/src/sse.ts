// Server-sent events from pieces of any size: the data of each complete event.

export class SseParser {
  private rest = "";

  push(piece: string): string[] {
    const events: string[] = [];
    this.rest += piece;
    for (;;) {
      const end = /\r?\n\r?\n/.exec(this.rest);
      if (!end) return events;
      const data = this.rest
        .slice(0, end.index)
        .split(/\r?\n/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(line.startsWith("data: ") ? 6 : 5));
      this.rest = this.rest.slice(end.index + end[0].length);
      if (data.length > 0) events.push(data.join("\n")); // else a comment: the server's ping
    }
  }
}
