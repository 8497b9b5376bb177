// What the scripts of both SDKs share: the error that a promise must end with, and running checks.
import assert from 'node:assert/strict';

export const errorOf = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail('no error was thrown');
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
