// node sdk_test.mjs CLIENT_DIRECTORY PORT PORT_WITH_KEY
// Runs the official client against a server with the model "demo"; the second server knows the key
// sk-right. Prints one line per check and exits with the number of failures.
import assert from 'node:assert/strict';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { errorOf, runChecks, statusesWhileBusy } from './checks.mjs';

const [directory, port, lockedPort] = process.argv.slice(2);
const { default: OpenAI } = await import(pathToFileURL(path.join(directory, 'index.mjs')));
const { makeParseableResponseFormat } =
  await import(pathToFileURL(path.join(directory, 'lib', 'parser.mjs')));

const connect = (port, options = {}) =>
  new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'none', maxRetries: 0, ...options });
const client = connect(port);
const chat = (more = {}) => ({
  model: 'demo',
  messages: [{ role: 'user', content: 'Do you like movies?' }],
  max_tokens: 24,
  temperature: 0,
  ...more,
});
const metric = async (name) => {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const line = text.split('\n').find((line) => line.startsWith(name));
  return Number(line.split(' ').at(-1));
};
const eventually = async (condition) => {
  for (let i = 0; i < 1000; ++i) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail('never became true');
};

const tools = [
  {
    type: 'function',
    function: {
      name: 'get_weather',
      description: 'Tells the weather.',
      parameters: {
        type: 'object',
        properties: { city: { type: 'string', maxLength: 12 },
                      days: { type: 'integer', minimum: 1, maximum: 9 } },
        required: ['city', 'days'],
        additionalProperties: false,
      },
    },
  },
  {
    type: 'function',
    function: {
      name: 'set_mood',
      parameters: { type: 'object', properties: { mood: { enum: ['glad', 'sad'] } },
                    required: ['mood'], additionalProperties: false },
    },
  },
];
const checkArguments = (name, text) => {
  const args = JSON.parse(text);
  if (name === 'set_mood') {
    assert.ok(['glad', 'sad'].includes(args.mood));
  } else {
    assert.equal(name, 'get_weather');
    assert.deepEqual(Object.keys(args), ['city', 'days']);
    assert.ok(Number.isInteger(args.days) && args.days >= 1 && args.days <= 9);
  }
};
const checkCall = (call) => {
  assert.match(call.id, /^call_[0-9a-f]{24}$/);
  assert.equal(call.type, 'function');
  checkArguments(call.function.name, call.function.arguments);
};

const checks = {
  'models are listed': async () => {
    const list = await client.models.list();
    assert.deepEqual(list.data.map((model) => model.id), ['demo']);
    assert.equal((await client.models.retrieve('demo')).object, 'model');
  },

  'chat answers': async () => {
    const { data, request_id } = await client.chat.completions.create(chat()).withResponse();
    assert.equal(data.choices[0].message.role, 'assistant');
    assert.ok(data.choices[0].message.content.length > 0);
    assert.ok(['stop', 'length'].includes(data.choices[0].finish_reason));
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.match(request_id, /^req_/);
  },

  'a stream says what the whole answer says': async () => {
    const whole = await client.chat.completions.create(chat());
    const stream = await client.chat.completions.create(
      chat({ stream: true, stream_options: { include_usage: true } }));
    let text = '';
    let usage = null;
    let finish = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(finish, whole.choices[0].finish_reason);
    assert.deepEqual(usage, whole.usage);
  },

  'the stream helper collects the answer': async () => {
    const whole = await client.chat.completions.create(chat({ n: 2 }));
    const runner = client.chat.completions.stream(chat({ n: 2 }));
    const collected = await runner.finalChatCompletion();
    assert.equal(collected.choices.length, 2);
    for (const i of [0, 1]) {
      assert.equal(collected.choices[i].message.content, whole.choices[i].message.content);
      assert.equal(collected.choices[i].message.role, 'assistant');
    }
  },

  'several choices': async () => {
    const answer = await client.chat.completions.create(
      chat({ n: 2, temperature: 1, seed: 3, max_tokens: 30 }));
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
    assert.notEqual(answer.choices[0].message.content, answer.choices[1].message.content);
  },

  'log-probabilities': async () => {
    const answer = await client.chat.completions.create(
      chat({ logprobs: true, top_logprobs: 2, max_tokens: 5 }));
    const content = answer.choices[0].logprobs.content;
    assert.ok(content.length > 0);
    for (const entry of content) {
      assert.equal(entry.top_logprobs.length, 2);
      assert.ok(entry.logprob <= 0);
      assert.ok(Array.isArray(entry.bytes));
    }
    const stream = client.chat.completions.stream(
      chat({ logprobs: true, top_logprobs: 2, max_tokens: 5 }));
    const collected = await stream.finalChatCompletion();
    assert.deepEqual(collected.choices[0].logprobs.content, content);
  },

  'structured output is parsed, whole and streamed': async () => {
    const schema = {
      type: 'object',
      properties: {
        mood: { enum: ['glad', 'sad'] },
        films: { type: 'array', items: { type: 'string', maxLength: 8 }, minItems: 1, maxItems: 2 },
      },
      required: ['mood', 'films'],
      additionalProperties: false,
    };
    const params = chat({
      max_tokens: 200,
      temperature: 1,
      seed: 5,
      response_format: makeParseableResponseFormat(
        { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema } }, JSON.parse),
    });
    const parsed = (await client.chat.completions.parse(params)).choices[0].message.parsed;
    assert.deepEqual(Object.keys(parsed), ['mood', 'films']);
    assert.ok(['glad', 'sad'].includes(parsed.mood));
    assert.ok(parsed.films.length >= 1 && parsed.films.length <= 2);
    const streamed = await client.chat.completions.stream(params).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.parsed, parsed);
    schema.properties.mood = { not: {} };
    const refused = await errorOf(client.chat.completions.create({ ...params, stream: true }));
    assert.ok(refused instanceof OpenAI.BadRequestError);
    assert.match(refused.message, /'not' at #\/properties\/mood/);
  },

  'a required tool is called, whole and streamed': async () => {
    const params = chat({ tools, tool_choice: 'required', max_tokens: 200, temperature: 1, seed: 4,
                          parallel_tool_calls: false });
    const whole = (await client.chat.completions.create(params)).choices[0];
    assert.equal(whole.finish_reason, 'tool_calls');
    assert.equal(whole.message.content, null);
    assert.equal(whole.message.tool_calls.length, 1);
    checkCall(whole.message.tool_calls[0]);

    // By hand, as the documentation says it: the first fragment tells id, type and name.
    const calls = [];
    let finish = null;
    for await (const chunk of await client.chat.completions.create({ ...params, stream: true })) {
      for (const delta of chunk.choices[0]?.delta.tool_calls ?? []) {
        if (calls[delta.index] === undefined) {
          assert.match(delta.id, /^call_/);
          assert.equal(delta.type, 'function');
          assert.equal(delta.function.arguments, '');
          calls[delta.index] = { name: delta.function.name, arguments: '', fragments: 0 };
        } else {
          assert.equal(delta.id, undefined);
          calls[delta.index].arguments += delta.function.arguments;
          ++calls[delta.index].fragments;
        }
      }
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    assert.equal(finish, 'tool_calls');
    assert.equal(calls.length, 1);
    assert.equal(calls[0].name, whole.message.tool_calls[0].function.name);
    assert.equal(calls[0].arguments, whole.message.tool_calls[0].function.arguments);
    assert.ok(calls[0].fragments > 1);

    const helper = await client.chat.completions.stream(params).finalChatCompletion();
    assert.equal(helper.choices[0].finish_reason, 'tool_calls');
    assert.deepEqual(helper.choices[0].message.tool_calls[0].function.arguments,
                     whole.message.tool_calls[0].function.arguments);
  },

  'a named tool is called, and the answer to its result follows': async () => {
    const params = chat({ tools, tool_choice: { type: 'function', function: { name: 'set_mood' } },
                          max_tokens: 200 });
    const first = (await client.chat.completions.create(params)).choices[0].message;
    assert.equal(first.tool_calls[0].function.name, 'set_mood');
    checkCall(first.tool_calls[0]);
    const next = await client.chat.completions.create(chat({
      tools,
      tool_choice: 'none',
      messages: [...params.messages, first,
                 { role: 'tool', tool_call_id: first.tool_calls[0].id, content: 'done' }],
    }));
    assert.ok(next.choices[0].message.content.length > 0);
    assert.equal(next.choices[0].message.tool_calls, undefined);
  },

  'runTools runs a function and goes on, whole and streamed': async () => {
    for (const stream of [false, true]) {
      const seen = [];
      const runner = client.chat.completions.runTools({
        ...chat({ stream, max_tokens: 200, seed: 9 }),
        // A named choice ends after one call in this helper; the conversation holds its result.
        tool_choice: { type: 'function', function: { name: 'set_mood' } },
        tools: [{
          type: 'function',
          function: {
            ...tools[1].function,
            parse: JSON.parse,
            function: (args) => { seen.push(args); return 'done'; },
          },
        }],
      });
      await runner.done();
      assert.equal(seen.length, 1);
      assert.ok(['glad', 'sad'].includes(seen[0].mood));
      const roles = runner.messages.map((message) => message.role);
      assert.deepEqual(roles.slice(0, 3), ['user', 'assistant', 'tool']);
    }
  },

  'broken tools are refused before anything runs': async () => {
    const broken = structuredClone(tools);
    broken[1].function.strict = true;
    broken[1].function.parameters.properties.mood = { not: {} };
    for (const [more, param] of [
      [{ tools: broken }, 'tools[1].function.parameters'],
      [{ tools, tool_choice: { type: 'function', function: { name: 'other' } } },
       'tool_choice.function.name'],
      [{ tools: [{ type: 'web_search' }] }, 'tools[0].type'],
      [{ tool_choice: 'required' }, 'tool_choice'],
    ]) {
      const error = await errorOf(client.chat.completions.create(chat({ ...more, stream: true })));
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, param);
    }
  },

  'responses call tools, whole and streamed': async () => {
    const ask = {
      model: 'demo',
      input: 'Do you like movies?',
      max_output_tokens: 200,
      temperature: 0,
      tools: tools.map(({ type, function: inner }) => ({ type, strict: true, ...inner })),
      tool_choice: 'required',
      parallel_tool_calls: false,
    };
    const whole = await client.responses.create(ask);
    assert.equal(whole.status, 'completed');
    assert.deepEqual(whole.output.map((item) => item.type), ['function_call']);
    const call = whole.output[0];
    checkArguments(call.name, call.arguments);
    const names = [];
    let collected = '';
    for await (const event of await client.responses.create({ ...ask, stream: true })) {
      if (names.at(-1) !== event.type) names.push(event.type);
      if (event.type === 'response.function_call_arguments.delta') collected += event.delta;
    }
    assert.equal(collected, call.arguments);
    assert.deepEqual(names, [
      'response.created', 'response.in_progress', 'response.output_item.added',
      'response.function_call_arguments.delta', 'response.function_call_arguments.done',
      'response.output_item.done', 'response.completed']);
    const helper = await client.responses.stream(ask).finalResponse();
    assert.equal(helper.output[0].arguments, call.arguments);
    const next = await client.responses.create({
      ...ask,
      tool_choice: 'none',
      input: [{ role: 'user', content: ask.input }, call,
              { type: 'function_call_output', call_id: call.call_id, output: 'done' }],
    });
    assert.ok(next.output_text.length > 0);
  },

  'completions, whole and streamed': async () => {
    const params = { model: 'demo', prompt: 'Once upon a time', max_tokens: 12, temperature: 0 };
    const whole = await client.completions.create({ ...params, logprobs: 1 });
    assert.equal(whole.object, 'text_completion');
    assert.equal(whole.choices[0].logprobs.tokens.length,
                 whole.choices[0].logprobs.token_logprobs.length);
    let text = '';
    for await (const chunk of await client.completions.create({ ...params, stream: true })) {
      text += chunk.choices[0].text;
    }
    assert.equal(text, whole.choices[0].text);
  },

  'abort in the middle of a stream frees the sequence': async () => {
    const controller = new AbortController();
    const stream = await client.chat.completions.create(
      chat({ stream: true, max_tokens: 900, ignore_eos: true }), { signal: controller.signal });
    let chunks = 0;
    for await (const chunk of stream) {
      assert.equal(chunk.object, 'chat.completion.chunk');
      if (++chunks === 5) controller.abort();
    }
    await eventually(async () => (await metric('tern_requests_running')) === 0);
    assert.equal(await metric('tern_kv_blocks_used'), 0);
  },

  'abort of a whole answer frees the sequence': async () => {
    const controller = new AbortController();
    const pending = client.chat.completions.create(
      chat({ max_tokens: 900, ignore_eos: true }), { signal: controller.signal });
    pending.catch(() => {});
    await eventually(async () => (await metric('tern_requests_running')) === 1);
    controller.abort();
    assert.ok(await errorOf(pending) instanceof OpenAI.APIUserAbortError);
    await eventually(async () => (await metric('tern_requests_running')) === 0);
  },

  'errors have their class, code and parameter': async () => {
    const invalid = await errorOf(client.chat.completions.create(chat({ temperature: 9 })));
    assert.ok(invalid instanceof OpenAI.BadRequestError);
    assert.equal(invalid.code, 'invalid_value');
    assert.equal(invalid.param, 'temperature');
    assert.equal(invalid.type, 'invalid_request_error');
    assert.match(invalid.message, /temperature/);
    assert.match(invalid.requestID, /^req_/);
    const tools = await errorOf(client.chat.completions.create(
      chat({ stream: true, tools: [{ type: 'web_search' }] })));
    assert.ok(tools instanceof OpenAI.BadRequestError);
    assert.equal(tools.code, 'unsupported_parameter');
    const missing = await errorOf(client.chat.completions.create(chat({ model: 'gpt-5' })));
    assert.ok(missing instanceof OpenAI.NotFoundError);
    assert.equal(missing.code, 'model_not_found');
    const long = await errorOf(client.chat.completions.create(
      chat({ messages: [{ role: 'user', content: 'movie '.repeat(3000) }] })));
    assert.equal(long.code, 'context_length_exceeded');
    assert.ok(long.error.n_prompt_tokens > long.error.n_ctx);
  },

  'the responses API answers, whole and streamed': async () => {
    const ask = { model: 'demo', instructions: 'Be kind.', max_output_tokens: 24, temperature: 0,
      input: [{ role: 'user', content: [{ type: 'input_text', text: 'Do you like movies?' }] }] };
    const whole = await client.responses.create(ask);
    assert.equal(whole.object, 'response');
    assert.ok(whole.output_text.length > 0);
    assert.equal(whole.usage.total_tokens, whole.usage.input_tokens + whole.usage.output_tokens);
    const types = [];
    let text = '';
    for await (const event of await client.responses.create({ ...ask, stream: true })) {
      assert.equal(event.sequence_number, types.length);
      types.push(event.type);
      if (event.type === 'response.output_text.delta') text += event.delta;
    }
    assert.equal(text, whole.output_text);
    assert.equal(types[0], 'response.created');
    assert.match(types.at(-1), /^response\.(completed|incomplete)$/);
    const helper = client.responses.stream(ask);
    assert.equal((await helper.finalResponse()).output_text, whole.output_text);
    const stored = await errorOf(client.responses.create({ ...ask, previous_response_id: 'resp_1' }));
    assert.equal(stored.code, 'unsupported_parameter');
    assert.equal(stored.param, 'previous_response_id');
  },

  'embeddings, by default and as floats': async () => {
    // The client asks for base64 unless it is told otherwise, and decodes it.
    const ask = { model: 'demo', input: ['A fine day', 'Rain'] };
    const decoded = await client.embeddings.create(ask);
    const floats = await client.embeddings.create({ ...ask, encoding_format: 'float' });
    assert.equal(decoded.data.length, 2);
    for (const [i, { embedding, index }] of decoded.data.entries()) {
      assert.equal(index, i);
      assert.equal(embedding.length, floats.data[i].embedding.length);
      embedding.forEach((x, j) => assert.equal(x, Math.fround(floats.data[i].embedding[j])));
    }
    assert.notDeepEqual(decoded.data[0].embedding, decoded.data[1].embedding);
    assert.ok(decoded.usage.total_tokens > 0);
    const short = await client.embeddings.create({ model: 'demo', input: 'Rain', dimensions: 8 });
    assert.equal(short.data[0].embedding.length, 8);
  },

  'what a limit refuses is retried': async () => {
    // The key sk-one may have one request at a time.
    let refused;
    await statusesWhileBusy(lockedPort, async (fetch) => {
      refused = await errorOf(
        connect(lockedPort, { apiKey: 'sk-one', fetch }).chat.completions.create(chat()));
    });
    assert.ok(refused instanceof OpenAI.RateLimitError);
    assert.equal(refused.code, 'rate_limit_exceeded');
    assert.ok(Number(refused.headers.get('retry-after')) >= 1);
    let answer;
    const statuses = await statusesWhileBusy(lockedPort, async (fetch) => {
      const limited = connect(lockedPort, { apiKey: 'sk-one', fetch, maxRetries: 10 });
      answer = await limited.chat.completions.create(chat());
    });
    assert.ok(answer.choices[0].message.content.length > 0);
    assert.equal(statuses[0], 429);
    assert.equal(statuses.at(-1), 200);
  },

  'keys are checked': async () => {
    const wrong = await errorOf(connect(lockedPort, { apiKey: 'sk-wrong' }).models.list());
    assert.ok(wrong instanceof OpenAI.AuthenticationError);
    assert.equal(wrong.code, 'invalid_api_key');
    const right = connect(lockedPort, { apiKey: 'sk-right' });
    assert.equal((await right.models.list()).data.length, 1);
  },

  'sixteen streams at once': async () => {
    const ask = async (i) => {
      const stream = client.chat.completions.stream(chat({ max_tokens: 10 + i, seed: i }));
      return (await stream.finalChatCompletion()).choices[0].message.content;
    };
    const together = await Promise.all(Array.from({ length: 16 }, (_, i) => ask(i)));
    for (let i = 0; i < 16; ++i) assert.equal(together[i], await ask(i));
  },
};

process.exit(await runChecks(checks));
