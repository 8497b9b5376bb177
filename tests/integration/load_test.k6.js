// k6 run -e URL=http://127.0.0.1:8080 tests/integration/load_test.k6.js
//
// Chat, whole and streamed, completions, calls of a function and token counts by many clients at
// once: every answer is 200 and has the shape that clients rely on, and every call's arguments are
// valid. Tested with k6 1.8.1. -e VUS=32 -e DURATION=1m for more.
import { check } from 'k6';
import http from 'k6/http';
import { Rate, Trend } from 'k6/metrics';

const url = __ENV.URL || 'http://127.0.0.1:8080';
const tokens = new Trend('completion_tokens');
const valid = new Rate('valid_answers');

export const options = {
  vus: Number(__ENV.VUS || 16),
  duration: __ENV.DURATION || '30s',
  thresholds: { valid_answers: ['rate == 1'], http_req_failed: ['rate == 0'] },
};

const post = (path, body) => http.post(url + path, JSON.stringify(body), {
  headers: { 'Content-Type': 'application/json' }, tags: { name: path },
});
const messages = [{ role: 'user', content: 'Do you like movies?' }];
const sampled = () => ({ messages, max_tokens: 48, temperature: 1, seed: __VU * 10000 + __ITER });

const kinds = [
  () => {
    const answer = post('/v1/chat/completions', sampled());
    tokens.add(answer.json('usage.completion_tokens'));
    return { 'chat has text': () => answer.json('choices.0.message.content').length > 0 };
  },
  () => {
    const answer = post('/v1/chat/completions', { ...sampled(), stream: true });
    return {
      'stream ends with [DONE]': () => answer.body.endsWith('data: [DONE]\n\n'),
      'stream says how it ended': () => /"finish_reason":"(stop|length)"/.test(answer.body),
    };
  },
  () => {
    const answer = post('/v1/completions', { prompt: 'Once upon a time', max_tokens: 32 });
    return { 'completion has text': () => answer.json('choices.0.text').length > 0 };
  },
  () => {
    const answer = post('/v1/chat/completions', {
      ...sampled(), max_tokens: 200, tool_choice: 'required', parallel_tool_calls: false,
      tools: [{ type: 'function', function: { name: 'set_mood', parameters: {
        type: 'object', properties: { mood: { enum: ['glad', 'sad'] } }, required: ['mood'],
        additionalProperties: false } } }],
    });
    const mood = () => JSON.parse(
      answer.json('choices.0.message.tool_calls.0.function.arguments')).mood;
    return { 'call has valid arguments': () => ['glad', 'sad'].includes(mood()) };
  },
  () => {
    const answer = post('/v1/messages/count_tokens', { messages });
    return { 'tokens are counted': () => answer.json('input_tokens') > 0 };
  },
];

export default function () {
  valid.add(check(null, kinds[__ITER % kinds.length]()));
}
