// Commands from a test: a line of JSON {command, args} on standard input, a line {ok} or {error} for each on
// standard output, in order; the end of the input is the end of the program.

import {createInterface} from 'node:readline';

import {describe} from './device.mjs';

export async function serve(greeting, perform) {
  const answer = message => process.stdout.write(JSON.stringify(message) + '\n');
  answer({ok: greeting});
  for await (const line of createInterface({input: process.stdin})) {
    const {command, args} = JSON.parse(line);
    try {
      answer({ok: await perform(command, args) ?? null});
    } catch (error) {
      answer({error: describe(error)});
    }
  }
}
