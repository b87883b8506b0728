// One process for many files of tests: one bundle of all workflows, one worker, and at the end one replay of all histories.
//
// Prints a line of JSON for each test, `{"test": ..., "error": null or text}`, and at the end `{"done": count}`.
import { Runtime, DefaultLogger } from '@temporalio/worker';
import { Stage } from './harness';

type Test = (stage: Stage) => Promise<void>;
interface Named {
  name: string;
  file: string;
  test: Test;
}

const TEST_MS_MAX = 90_000;
const AT_ONCE = 12;

function say(line: object): void {
  process.stdout.write(JSON.stringify(line) + '\n');
}

async function bounded(test: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not over after ${TEST_MS_MAX} ms`)), TEST_MS_MAX);
  });
  try {
    await Promise.race([test, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function one(stage: Stage, { name, file, test }: Named, errors: Map<string, string | null>): Promise<void> {
  const begun = Date.now();
  let error: string | null = null;
  try {
    await bounded(test(stage.of(name)));
  } catch (raised: any) {
    error = [raised?.stack ?? String(raised), raised?.cause?.stack].filter(Boolean).join('\ncaused by ').slice(-6000);
  }
  errors.set(name, error);
  process.stderr.write(`${file}: ${name}: ${Date.now() - begun} ms\n`);
}

export async function main([address, namespace, ...rest]: string[]): Promise<void> {
  const at = rest.indexOf('--only');
  const only = at < 0 ? [] : rest.slice(at + 1);
  const files = at < 0 ? rest : rest.slice(0, at);
  Runtime.install({
    logger: new DefaultLogger('WARN'),
    telemetryOptions: { logging: { filter: 'temporalio_sdk_core=WARN', forward: {} } },
  });
  const tests: Named[] = files.flatMap((file) => {
    const { ONE_BY_ONE, ...exported } = require(`./tests/${file}.ts`);
    return Object.entries(exported as Record<string, Test>).map(([name, test]) => ({ name, file, test }));
  });
  const wanted = tests.filter(({ name }) => only.length === 0 || only.includes(name));
  if (wanted.length === 0) throw new Error('no such test');
  const oneByOne = files.some((file) => require(`./tests/${file}.ts`).ONE_BY_ONE);

  const errors = new Map<string, string | null>();
  await Stage.open(address, namespace, async (stage) => {
    const queue = [...wanted];
    const lane = async () => {
      for (let next = queue.shift(); next; next = queue.shift()) await one(stage, next, errors);
    };
    await Promise.all(Array.from({ length: oneByOne ? 1 : AT_ONCE }, lane));
    for (const { test, error } of await stage.replayAll()) {
      errors.set(test, [errors.get(test), `the replay: ${error}`].filter(Boolean).join('\n'));
    }
  });
  for (const [test, error] of errors) say({ test, error });
  say({ done: wanted.length });
}
