import { defineConfig } from "vite";

// The server's address while working on the page: TERN_URL=http://127.0.0.1:9000 npm run dev
const server = process.env.TERN_URL ?? "http://127.0.0.1:8080";
const api = ["/v1", "/health", "/metrics"];

export default defineConfig({
  base: "/",
  build: {
    target: "es2020",
    // Nothing inline and nothing but our own files: the page's Content-Security-Policy says so.
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: true,
  },
  server: { proxy: Object.fromEntries(api.map((path) => [path, server])) },
});
