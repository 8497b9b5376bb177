// What units_test.mjs tests, in one module.
export * from "../../web/src/conversation.ts";
export * from "../../web/src/format.ts";
export * from "../../web/src/markdown/blocks.ts";
export * from "../../web/src/markdown/inline.ts";
export * from "../../web/src/sse.ts";
export * from "../../web/src/telemetry/prometheus.ts";
