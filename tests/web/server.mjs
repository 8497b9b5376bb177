// A real server, and a proxy before it whose connections can be slowed down and cut.
import { spawn } from "node:child_process";
import http from "node:http";

// Starts `tern serve` on a free port; resolves when it is ready.
export function startTern(binary, flags = []) {
  const child = spawn(binary, ["serve", "--port", "0", ...flags], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  return new Promise((resolve, reject) => {
    let log = "";
    child.stderr.on("data", (data) => {
      log += data;
      const url = /ready at (http:\/\/[\d.:]+)/.exec(log)?.[1];
      if (url) resolve({ url, stop: () => stop(child) });
    });
    child.on("exit", (code) => reject(new Error(`tern ended with ${code}: ${log}`)));
  });
}

function stop(child) {
  return new Promise((resolve) => {
    child.removeAllListeners("exit");
    child.on("exit", resolve);
    child.kill("SIGTERM");
  });
}

// Forwards everything to `target`.
//
//   delay       ms before each piece of an event stream
//   cutAfter    pieces of an event stream after which its connection is reset, once; 0: never
//   down        every connection is reset
//   lastStream  what has come of the latest event stream; browsers do not always keep it
export class Proxy {
  delay = 0;
  cutAfter = 0;
  down = false;
  onCut = () => {};

  async start(target) {
    this.target = new URL(target);
    this.server = http.createServer((request, response) => this.forward(request, response));
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  stop() {
    this.server.closeAllConnections?.();
    return new Promise((resolve) => this.server.close(resolve));
  }

  forward(request, response) {
    if (this.down) return request.socket.destroy();
    const upstream = http.request(
      {
        host: this.target.hostname,
        port: this.target.port,
        path: request.url,
        method: request.method,
        headers: request.headers,
      },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        const stream = (answer.headers["content-type"] ?? "").startsWith("text/event-stream");
        if (stream) this.pour(answer, response);
        else answer.pipe(response);
      },
    );
    upstream.on("error", () => response.destroy());
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  }

  // Event by event, so that a slow stream is slow whatever the pieces of TCP are.
  async pour(answer, response) {
    this.lastStream = "";
    let pieces = 0;
    let rest = "";
    answer.setEncoding("utf8");
    try {
      for await (const data of answer) {
        rest += data;
        for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
          if (this.delay) await new Promise((resolve) => setTimeout(resolve, this.delay));
          if (response.destroyed) return;
          response.write(rest.slice(0, end + 2));
          this.lastStream += rest.slice(0, end + 2);
          rest = rest.slice(end + 2);
          pieces += 1;
          if (this.cutAfter && pieces >= this.cutAfter) {
            this.cutAfter = 0;
            this.onCut();
            response.destroy();
            return;
          }
        }
      }
      response.end(rest);
    } catch {
      response.destroy();
    }
  }
}
