import {
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  condition,
  defineQuery,
  defineSignal,
  deprecatePatch,
  isCancellation,
  patched,
  proxyActivities,
  setDefaultSignalHandler,
  setHandler,
  sleep,
  uuid4,
  workflowInfo,
} from '@temporalio/workflow';
import type * as all from '../activities';

export async function timers(): Promise<string> {
  const scope = new CancellationScope();
  const long = scope.run(() => sleep('60s')).catch((error) => error.constructor.name);
  await sleep(100);
  scope.cancel();
  const how = await long;
  await sleep(50);
  return how;
}

export const put = defineSignal<[string]>('put');
export const got = defineQuery<string[]>('got');
export const nth = defineQuery<string, [number]>('nth');

/** Takes signals until one says stop. */
export async function inbox(): Promise<string[]> {
  const texts: string[] = [];
  setHandler(put, (text) => void texts.push(text));
  setHandler(got, () => texts);
  setHandler(nth, (n) => {
    if (n >= texts.length) throw ApplicationFailure.create({ message: `there is no ${n}` });
    return texts[n];
  });
  await condition(() => texts.includes('stop'));
  return texts;
}

/** Takes signals of any name. */
export async function anySignal(): Promise<string[]> {
  const names: string[] = [];
  setDefaultSignalHandler((name) => void names.push(name));
  await condition(() => names.includes('stop'));
  return names;
}

/** Waits for a condition, but not for ever. */
export async function impatient(): Promise<string> {
  const seen = await condition(() => false, '100ms');
  return `${seen}`;
}

/** Cleans up when it is cancelled, in a scope that is not. */
export async function careful(swallow: boolean): Promise<string> {
  const { echo } = proxyActivities<typeof all>({ startToCloseTimeout: '10s' });
  try {
    await sleep('60s');
  } catch (error) {
    if (!isCancellation(error)) throw error;
    const cleaned = await CancellationScope.nonCancellable(() => echo('cleaned up'));
    if (swallow) return cleaned;
    throw error;
  }
  return 'never';
}

export async function returns(value: string): Promise<string> {
  if (value === 'fail') {
    const cause = ApplicationFailure.create({ message: 'the cause', type: 'Inner', details: [{ deep: true }] });
    throw ApplicationFailure.create({ message: 'as asked', type: 'asked', nonRetryable: true, details: [1, 'two'], cause });
  }
  if (value === 'cancel') throw new CancelledFailure('by itself');
  return value;
}

/** Breaks until its signal repairs it: an error that is no failure of the workflow fails its task. */
export async function breaks(): Promise<string> {
  let repaired = false;
  setHandler(put, () => {
    repaired = true;
  });
  await condition(() => repaired, '200ms');
  if (!repaired) throw new TypeError('a bug');
  return 'repaired';
}

export const at = defineQuery<number>('at');

/** Several workflow tasks, so that a cache matters. */
export async function steps(count: number): Promise<number> {
  let step = 0;
  setHandler(at, () => step);
  for (; step < count; step += 1) await sleep(20);
  return step;
}

export async function patches(deprecated: boolean): Promise<string> {
  if (deprecated) {
    deprecatePatch('older');
    return 'deprecated';
  }
  const first = patched('newer') ? 'new' : 'old';
  await sleep(20);
  const second = patched('newer') ? 'new' : 'old';
  return `${first} ${second}`;
}

/** What is drawn must be drawn again by a replay, and after a reset. */
export async function random(): Promise<string[]> {
  const first = [uuid4(), `${Math.random()}`];
  await sleep(20);
  return [...first, uuid4(), `${Date.now()}`];
}

export async function sums(): Promise<number> {
  const { add } = proxyActivities<typeof all>({ startToCloseTimeout: '10s' });
  let extra = 0;
  setHandler(put, (text) => {
    extra += Number(text);
  });
  let total = 0;
  for (let i = 1; i <= 3; i += 1) total = await add(total, i);
  await condition(() => extra > 0);
  return total + extra;
}

export async function tellsOfItself(): Promise<object> {
  const { workflowId, runId, firstExecutionRunId, attempt, taskQueue, namespace, workflowType, memo, startTime } = workflowInfo();
  return { workflowId, runId, firstExecutionRunId, attempt, taskQueue, namespace, workflowType, memo, startTime: startTime.getTime() };
}
