// What the scripts of the SDKs share: the error that a promise must end with, a key that is busy,
// and running checks.
import assert from 'node:assert/strict';

export const errorOf = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail('no error was thrown');
};

// Does the work while the key sk-one, which may have one request at a time, is busy. The work gets a
// `fetch` for its client: the first refusal that it sees frees the key. Returns the statuses it saw.
export const statusesWhileBusy = async (port, work) => {
  const controller = new AbortController();
  const ask = () => fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST',
    signal: controller.signal,
    headers: { authorization: 'Bearer sk-one', 'content-type': 'application/json' },
    body: JSON.stringify({ messages: [{ role: 'user', content: 'Tell me a story.' }],
                           stream: true, ignore_eos: true, max_tokens: 900 }),
  });
  // An earlier request may not have left yet.
  while ((await ask()).status !== 200);
  const statuses = [];
  await work(async (...request) => {
    const response = await fetch(...request);
    statuses.push(response.status);
    if (response.status === 429) controller.abort();
    return response;
  });
  return statuses;
};

// Prints one line per check; returns the number of failures.
export const runChecks = async (checks) => {
  let failures = 0;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`ok      ${name}`);
    } catch (error) {
      ++failures;
      console.log(`FAILED  ${name}\n${error.stack}`);
    }
  }
  return failures;
};
