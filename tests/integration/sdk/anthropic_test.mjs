// node anthropic_test.mjs CLIENT_DIRECTORY PORT PORT_WITH_KEY
// Runs Anthropic's official client against a server with the model "demo"; the second server knows
// the key sk-right. Prints one line per check and exits with the number of failures.
import assert from 'node:assert/strict';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { errorOf, runChecks } from './checks.mjs';

const [directory, port, lockedPort] = process.argv.slice(2);
const { default: Anthropic } = await import(pathToFileURL(path.join(directory, 'index.mjs')));

const connect = (port, apiKey = 'none') =>
  new Anthropic({ baseURL: `http://127.0.0.1:${port}`, apiKey, maxRetries: 0 });
const client = connect(port);
const ask = (more = {}) => ({
  model: 'demo',
  max_tokens: 24,
  temperature: 0,
  messages: [{ role: 'user', content: 'Do you like movies?' }],
  ...more,
});

const checks = {
  'a message is answered': async () => {
    const message = await client.messages.create(ask());
    assert.equal(message.type, 'message');
    assert.equal(message.role, 'assistant');
    assert.ok(message.content[0].text.length > 0);
    assert.ok(['end_turn', 'max_tokens'].includes(message.stop_reason));
    assert.ok(message.usage.output_tokens > 0);
  },

  'a stream says what the whole answer says': async () => {
    const whole = await client.messages.create(ask());
    const stream = client.messages.stream(ask());
    let text = '';
    stream.on('text', (delta) => { text += delta; });
    const message = await stream.finalMessage();
    assert.equal(text, whole.content[0].text);
    assert.equal(message.content[0].text, text);
    assert.equal(message.stop_reason, whole.stop_reason);
    assert.equal(message.usage.output_tokens, whole.usage.output_tokens);
  },

  'system, blocks and a prefilled answer': async () => {
    const message = await client.messages.create(ask({
      system: [{ type: 'text', text: 'Be kind.' }],
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'Do you like movies?' }] },
        { role: 'assistant', content: 'Yes, I' },
      ],
    }));
    assert.ok(message.content[0].text.length > 0);
  },

  'a stop sequence is named': async () => {
    const whole = (await client.messages.create(ask())).content[0].text;
    const word = whole.split(' ')[2];
    const stopped = await client.messages.create(ask({ stop_sequences: [word] }));
    assert.equal(stopped.stop_reason, 'stop_sequence');
    assert.equal(stopped.stop_sequence, word);
    assert.ok(!stopped.content[0].text.includes(word));
  },

  'tokens are counted': async () => {
    const { input_tokens } = await client.messages.countTokens({
      model: 'demo', messages: ask().messages });
    const { usage } = await client.messages.create(ask());
    assert.equal(input_tokens,
      usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens);
  },

  'tools are called, whole and streamed, and their results read': async () => {
    const params = ask({
      max_tokens: 200,
      tools: [{
        name: 'set_mood',
        description: 'Sets the mood.',
        input_schema: { type: 'object', properties: { mood: { enum: ['glad', 'sad'] } },
                        required: ['mood'], additionalProperties: false },
      }],
      tool_choice: { type: 'tool', name: 'set_mood' },
    });
    const whole = await client.messages.create(params);
    assert.equal(whole.stop_reason, 'tool_use');
    assert.deepEqual(whole.content.map((block) => block.type), ['tool_use']);
    const [call] = whole.content;
    assert.match(call.id, /^toolu_/);
    assert.equal(call.name, 'set_mood');
    assert.ok(['glad', 'sad'].includes(call.input.mood));

    const stream = client.messages.stream(params);
    let json = '';
    stream.on('inputJson', (delta) => { json += delta; });
    const message = await stream.finalMessage();
    assert.equal(message.stop_reason, 'tool_use');
    assert.deepEqual(message.content[0].input, call.input);
    assert.deepEqual(JSON.parse(json), call.input);

    const next = await client.messages.create({
      ...params,
      tool_choice: { type: 'none' },
      messages: [...params.messages, { role: 'assistant', content: whole.content },
                 { role: 'user', content: [
                   { type: 'tool_result', tool_use_id: call.id, content: 'done' },
                   { type: 'text', text: 'And now?' }] }],
    });
    assert.equal(next.content[0].type, 'text');
    const { input_tokens: with_tools } = await client.messages.countTokens({
      model: 'demo', messages: params.messages, tools: params.tools });
    const { input_tokens: without } = await client.messages.countTokens({
      model: 'demo', messages: params.messages });
    assert.ok(with_tools > without + 20);
    const wrong = await errorOf(client.messages.create({ ...params, tools: [{ name: 'x' }] }));
    assert.equal(wrong.status, 400);
    assert.match(wrong.message, /tools\[0\]\.input_schema/);
  },

  'errors have their class and type': async () => {
    const invalid = await errorOf(client.messages.create(ask({ max_tokens: 0 })));
    assert.ok(invalid instanceof Anthropic.BadRequestError);
    assert.equal(invalid.error.error.type, 'invalid_request_error');
    const missing = await errorOf(client.messages.create(ask({ model: 'other' })));
    assert.ok(missing instanceof Anthropic.NotFoundError);
    assert.equal(missing.error.error.type, 'not_found_error');
    const streamed = await errorOf(client.messages.create(ask({ stream: true, temperature: 9 })));
    assert.ok(streamed instanceof Anthropic.BadRequestError);
    const wrong = await errorOf(connect(lockedPort, 'sk-wrong').messages.create(ask()));
    assert.ok(wrong instanceof Anthropic.AuthenticationError);
    assert.equal((await connect(lockedPort, 'sk-right').messages.create(ask())).role, 'assistant');
  },
};

process.exit(await runChecks(checks));
