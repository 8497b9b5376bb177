// node ai_sdk_test.mjs NODE_MODULES PORT PORT_WITH_KEY
// Runs Vercel's AI SDK through @ai-sdk/openai-compatible against a server with the model "demo";
// the second server knows the key sk-right. Prints one line per check and exits with the number of
// failures.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { errorOf, runChecks, statusesWhileBusy } from './checks.mjs';

const [modules, port, lockedPort] = process.argv.slice(2);
const { resolve } = createRequire(path.join(modules, 'index.js'));
const load = (name) => import(pathToFileURL(resolve(name)));
const { embed, embedMany, generateObject, generateText, stepCountIs, streamText, tool } =
  await load('ai');
const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible');
const { z } = await load('zod');

const connect = (port, apiKey, more = {}) => createOpenAICompatible({
  name: 'tern',
  baseURL: `http://127.0.0.1:${port}/v1`,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
  ...more,
});
const tern = connect(port);
const ask = (more = {}) => ({
  model: tern('demo'),
  prompt: 'Do you like movies?',
  maxOutputTokens: 24,
  temperature: 0,
  maxRetries: 0,
  ...more,
});

const checks = {
  'text is generated': async () => {
    const answer = await generateText(ask());
    assert.ok(answer.text.length > 0);
    assert.ok(['stop', 'length'].includes(answer.finishReason));
    assert.equal(answer.usage.totalTokens, answer.usage.inputTokens + answer.usage.outputTokens);
    assert.equal(answer.response.modelId, 'demo');
  },

  'a stream says what the whole answer says': async () => {
    const whole = await generateText(ask());
    const stream = streamText(ask());
    let text = '';
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, whole.text);
    assert.equal(await stream.finishReason, whole.finishReason);
    assert.deepEqual((await stream.usage).totalTokens, whole.usage.totalTokens);
  },

  'objects follow their schema': async () => {
    const schema = z.object({ mood: z.enum(['glad', 'sad']), points: z.number().int() });
    const { object } = await generateObject(
      ask({ schema, maxOutputTokens: 200, temperature: 1, seed: 4 }));
    schema.parse(object);
  },

  'tools are called with valid arguments, and their results go back': async () => {
    const seen = [];
    const tools = {
      set_mood: tool({
        description: 'Sets the mood.',
        inputSchema: z.object({ mood: z.enum(['glad', 'sad']), points: z.number().int() }),
        execute: async (input, { toolCallId }) => {
          seen.push({ input, toolCallId });
          return { done: true };
        },
      }),
    };
    // The first step must call, the second may not.
    const prepareStep = ({ stepNumber }) =>
      ({ toolChoice: stepNumber === 0 ? { type: 'tool', toolName: 'set_mood' } : 'none' });
    const params = ask({ tools, prepareStep, stopWhen: stepCountIs(2), maxOutputTokens: 200 });
    const whole = await generateText(params);
    assert.equal(whole.steps.length, 2);
    assert.equal(whole.steps[0].finishReason, 'tool-calls');
    const [call] = whole.steps[0].toolCalls;
    assert.equal(call.toolName, 'set_mood');
    assert.deepEqual(seen, [{ input: call.input, toolCallId: call.toolCallId }]);
    assert.ok(['glad', 'sad'].includes(call.input.mood) && Number.isInteger(call.input.points));
    assert.ok(whole.text.length > 0);

    const stream = streamText(params);
    let fragments = '';
    const inputs = [];
    let text = '';
    for await (const part of stream.fullStream) {
      if (part.type === 'tool-input-delta') fragments += part.delta;
      if (part.type === 'tool-call') inputs.push(part.input);
      if (part.type === 'text-delta') text += part.text;
    }
    assert.deepEqual(inputs, [call.input]);
    assert.deepEqual(JSON.parse(fragments), call.input);
    assert.equal(text, whole.text);
    assert.equal(seen.length, 2);
  },

  'embeddings, one and many': async () => {
    const model = tern.textEmbeddingModel('demo');
    const one = await embed({ model, value: 'A fine day' });
    const many = await embedMany({ model, values: ['Rain', 'A fine day'] });
    assert.equal(many.embeddings.length, 2);
    assert.deepEqual(many.embeddings[1], one.embedding);
    const squares = one.embedding.reduce((sum, x) => sum + x * x, 0);
    assert.ok(Math.abs(squares - 1) < 1e-5);
    assert.ok(one.usage.tokens > 0);
  },

  'abort ends a stream': async () => {
    const controller = new AbortController();
    const stream = streamText(
      ask({ maxOutputTokens: 900, abortSignal: controller.signal, onError() {} }));
    let aborted = false;
    for await (const part of stream.fullStream) {
      if (part.type === 'text-delta') controller.abort();
      aborted ||= part.type === 'abort';
    }
    assert.ok(aborted);
  },

  'errors have status and message': async () => {
    const invalid = await errorOf(generateText(ask({ temperature: 9 })));
    assert.equal(invalid.statusCode, 400);
    assert.match(invalid.message, /temperature/);
    const missing = await errorOf(generateText(ask({ model: tern('gpt-5') })));
    assert.equal(missing.statusCode, 404);
    assert.equal(missing.data.error.code, 'model_not_found');
  },

  'keys are checked': async () => {
    const wrong = await errorOf(
      generateText(ask({ model: connect(lockedPort, 'sk-wrong')('demo') })));
    assert.equal(wrong.statusCode, 401);
    const right = await generateText(ask({ model: connect(lockedPort, 'sk-right')('demo') }));
    assert.ok(right.text.length > 0);
  },

  'a key beyond its limit is retried': async () => {
    let text = '';
    const statuses = await statusesWhileBusy(lockedPort, async (fetch) => {
      const model = connect(lockedPort, 'sk-one', { fetch })('demo');
      text = (await generateText(ask({ model, maxRetries: 5 }))).text;
    });
    assert.ok(text.length > 0);
    assert.equal(statuses[0], 429);
    assert.equal(statuses.at(-1), 200);
  },
};

process.exit(await runChecks(checks));
