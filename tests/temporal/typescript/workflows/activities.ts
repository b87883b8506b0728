import {
  ActivityCancellationType,
  ActivityFailure,
  ActivityOptions,
  CancellationScope,
  condition,
  defineSignal,
  proxyActivities,
  proxyLocalActivities,
  setHandler,
} from '@temporalio/workflow';
import type * as all from '../activities';

const FAST = { initialInterval: '20ms', backoffCoefficient: 1 } as const;

/** Runs one activity with the options given. */
export async function oneActivity(name: string, args: any[], options: Partial<ActivityOptions>): Promise<any> {
  const given = { startToCloseTimeout: '10s', ...options, retry: { ...FAST, ...options.retry } } as ActivityOptions;
  return await (proxyActivities<any>(given) as any)[name](...args);
}

export async function parallelActivities(count: number): Promise<string[]> {
  const { echo } = proxyActivities<typeof all>({ startToCloseTimeout: '10s' });
  return await Promise.all(Array.from({ length: count }, (_, i) => echo(`${i}`)));
}

export const cancelNow = defineSignal('cancelNow');

/** Cancels its activity when it is told to. */
export async function cancelsActivity(name: string, how: string, queue?: string): Promise<string> {
  let told = false;
  setHandler(cancelNow, () => {
    told = true;
  });
  const calls = proxyActivities<any>({
    startToCloseTimeout: '20s',
    heartbeatTimeout: '5s',
    cancellationType: how as ActivityCancellationType,
    taskQueue: queue,
  });
  const scope = new CancellationScope();
  const running = scope.run(() => (calls as any)[name]());
  await Promise.race([running.catch(() => undefined), condition(() => told)]);
  scope.cancel();
  try {
    return `result ${await running}`;
  } catch (error) {
    if (error instanceof ActivityFailure) return error.cause!.constructor.name;
    return (error as Error).constructor.name;
  }
}

export async function localActivity(fails: number): Promise<number> {
  const { flaky } = proxyLocalActivities<typeof all>({ startToCloseTimeout: '5s', retry: FAST });
  return await flaky(fails);
}

export async function longLocalActivity(): Promise<string> {
  const { sleepy } = proxyLocalActivities<typeof all>({ startToCloseTimeout: '10s' });
  return await sleepy(3_000);
}
