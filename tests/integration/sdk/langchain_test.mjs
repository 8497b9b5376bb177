// node langchain_test.mjs NODE_MODULES PORT PORT_WITH_KEY
// Runs LangChain's OpenAI package against a server with the model "demo"; the second server knows
// the key sk-right. Prints one line per check and exits with the number of failures.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';

import { errorOf, runChecks, statusesWhileBusy } from './checks.mjs';

const [modules, port, lockedPort] = process.argv.slice(2);
const require = createRequire(path.join(modules, 'index.js'));
const { ChatOpenAI, OpenAI, OpenAIEmbeddings } = require('@langchain/openai');
const { ToolMessage } = require('@langchain/core/messages');

const options = (port, more = {}) => ({
  model: 'demo',
  apiKey: 'none',
  temperature: 0,
  maxTokens: 24,
  maxRetries: 0,
  configuration: { baseURL: `http://127.0.0.1:${port}/v1` },
  ...more,
});
const question = [['system', 'You are kind.'], ['human', 'Do you like movies?']];

const checks = {
  'chat answers': async () => {
    const answer = await new ChatOpenAI(options(port)).invoke(question);
    assert.ok(answer.content.length > 0);
    assert.equal(answer.usage_metadata.total_tokens,
                 answer.usage_metadata.input_tokens + answer.usage_metadata.output_tokens);
    assert.ok(['stop', 'length'].includes(answer.response_metadata.finish_reason));
  },

  'a stream says what the whole answer says': async () => {
    const model = new ChatOpenAI(options(port));
    const whole = await model.invoke(question);
    let text = '';
    let usage;
    for await (const chunk of await model.stream(question)) {
      text += chunk.content;
      usage = chunk.usage_metadata ?? usage;
    }
    assert.equal(text, whole.content);
    assert.equal(usage.total_tokens, whole.usage_metadata.total_tokens);
  },

  'a batch answers each': async () => {
    const model = new ChatOpenAI(options(port));
    const [a, b] = await model.batch(['Do you like movies?', 'Hello']);
    assert.equal(a.content, (await model.invoke('Do you like movies?')).content);
    assert.equal(b.content, (await model.invoke('Hello')).content);
  },

  'completions': async () => {
    const text = await new OpenAI(options(port)).invoke('Once upon a time');
    assert.ok(text.length > 0);
  },

  'structured output follows its schema': async () => {
    const schema = {
      title: 'Answer',
      type: 'object',
      properties: { mood: { enum: ['glad', 'sad'] }, points: { type: 'integer' } },
      required: ['mood', 'points'],
      additionalProperties: false,
    };
    const model = new ChatOpenAI(options(port, { maxTokens: 200, temperature: 1 }))
      .withStructuredOutput(schema, { method: 'jsonSchema', strict: true });
    const answer = await model.invoke(question);
    assert.ok(['glad', 'sad'].includes(answer.mood));
    assert.ok(Number.isInteger(answer.points));
  },

  'tools are called, whole and streamed, and their results go back': async () => {
    const tools = [{
      type: 'function',
      function: {
        name: 'set_mood',
        parameters: { type: 'object', properties: { mood: { enum: ['glad', 'sad'] } },
                      required: ['mood'], additionalProperties: false },
      },
    }];
    const model = new ChatOpenAI(options(port, { maxTokens: 200 }));
    for (const choice of ['required', 'set_mood']) {
      const bound = model.bindTools(tools, { tool_choice: choice, parallel_tool_calls: false });
      const whole = await bound.invoke(question);
      assert.equal(whole.response_metadata.finish_reason, 'tool_calls');
      assert.deepEqual(whole.invalid_tool_calls, []);
      assert.equal(whole.tool_calls.length, 1);
      assert.equal(whole.tool_calls[0].name, 'set_mood');
      assert.ok(['glad', 'sad'].includes(whole.tool_calls[0].args.mood));

      let streamed;
      for await (const chunk of await bound.stream(question)) {
        streamed = streamed === undefined ? chunk : streamed.concat(chunk);
      }
      assert.equal(streamed.tool_calls.length, 1);
      assert.deepEqual(streamed.tool_calls[0].args, whole.tool_calls[0].args);

      const result = new ToolMessage({ content: 'done', tool_call_id: whole.tool_calls[0].id });
      const next = await model.bindTools(tools, { tool_choice: 'none' })
        .invoke([...question, whole, result]);
      assert.ok(next.content.length > 0);
      assert.deepEqual(next.tool_calls, []);
    }
  },

  'the responses API answers': async () => {
    const model = new ChatOpenAI(options(port, { useResponsesApi: true }));
    const answer = await model.invoke(question);
    assert.ok(answer.text.length > 0);
  },

  'embeddings': async () => {
    const model = new OpenAIEmbeddings(options(port));
    const [a, b] = await model.embedDocuments(['Rain', 'A fine day']);
    assert.deepEqual(await model.embedQuery('A fine day'), b);
    assert.equal(a.length, b.length);
    assert.notDeepEqual(a, b);
  },

  'abort ends a request': async () => {
    const controller = new AbortController();
    const stream = await new ChatOpenAI(options(port, { maxTokens: 900 }))
      .stream(question, { signal: controller.signal });
    const error = await errorOf((async () => {
      for await (const chunk of stream) if (chunk.content) controller.abort();
    })());
    assert.match(String(error), /abort/i);
  },

  'errors and keys': async () => {
    const missing = await errorOf(new ChatOpenAI(options(port, { model: 'gpt-5' })).invoke('Hi'));
    assert.equal(missing.status, 404);
    const wrong = await errorOf(
      new ChatOpenAI(options(lockedPort, { apiKey: 'sk-wrong' })).invoke('Hi'));
    assert.equal(wrong.status, 401);
    const right = new ChatOpenAI(options(lockedPort, { apiKey: 'sk-right' }));
    assert.ok((await right.invoke('Hi')).content.length > 0);
  },

  'a key beyond its limit is retried': async () => {
    let answer;
    const statuses = await statusesWhileBusy(lockedPort, async (fetch) => {
      const configuration = { baseURL: `http://127.0.0.1:${lockedPort}/v1`, fetch };
      const model = new ChatOpenAI(
        options(lockedPort, { apiKey: 'sk-one', maxRetries: 5, configuration }));
      answer = await model.invoke('Hello');
    });
    assert.ok(answer.content.length > 0);
    assert.equal(statuses[0], 429);
    assert.equal(statuses.at(-1), 200);
  },
};

process.exit(await runChecks(checks));
