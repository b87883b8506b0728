// The activities of all tests, and what the tests themselves share with them: they live in one process.
import { activityInfo, ApplicationFailure, CancelledFailure, CompleteAsyncError, Context, heartbeat, sleep } from '@temporalio/activity';

/** What an activity that is completed from elsewhere tells of itself. */
export interface Token {
  taskToken: Uint8Array;
  workflowId: string;
  runId: string;
  activityId: string;
}
export const tokens = new Map<string, Token>();
/** Attempts by workflow id, and the ids whose held activity may end. */
export const attempts = new Map<string, number>();
export const opened = new Set<string>();

export async function echo(text: string): Promise<string> {
  return text;
}

export async function add(a: number, b: number): Promise<number> {
  return a + b;
}

export async function flaky(fails: number, type = 'again', final = false): Promise<number> {
  const { attempt } = activityInfo();
  if (attempt > fails) return attempt;
  throw ApplicationFailure.create({ message: `try ${attempt}`, type, nonRetryable: final, details: [`detail ${attempt}`] });
}

export async function delayed(fails: number): Promise<number> {
  const { attempt } = activityInfo();
  if (attempt > fails) return attempt;
  throw ApplicationFailure.create({ message: 'wait', nextRetryDelay: '10ms' });
}

export async function sleepy(ms: number): Promise<string> {
  await sleep(ms);
  return 'slept';
}

/** Beats once a step, and fails in the middle of its first attempt. */
export async function beating(upto: number): Promise<number[]> {
  const last = activityInfo().heartbeatDetails as number | undefined;
  const begin = last === undefined ? 0 : last + 1;
  for (let step = begin; step < upto; step += 1) {
    heartbeat(step);
    await sleep(50);
    if (step === 1 && last === undefined) throw new Error('in the middle');
  }
  return [begin, upto];
}

/** Beats once and hangs in its first attempt. */
export async function silent(): Promise<number> {
  if (activityInfo().attempt > 1) return activityInfo().heartbeatDetails;
  heartbeat(7);
  await sleep(30_000);
  return -1;
}

export async function cancellable(): Promise<string> {
  for (;;) {
    heartbeat('on');
    await sleep(50);
  }
}

/** Sees that it is cancelled and ends well all the same. */
export async function stubborn(): Promise<string> {
  try {
    return await cancellable();
  } catch (error) {
    if (error instanceof CancelledFailure) return 'done all the same';
    throw error;
  }
}

export async function fromElsewhere(): Promise<string> {
  const info = Context.current().info;
  tokens.set(info.workflowExecution!.workflowId, {
    taskToken: info.taskToken,
    workflowId: info.workflowExecution!.workflowId,
    runId: info.workflowExecution!.runId,
    activityId: info.activityId,
  });
  throw new CompleteAsyncError();
}

/** Runs until a test opens its gate. */
export async function held(): Promise<string> {
  const id = activityInfo().workflowExecution!.workflowId;
  attempts.set(id, (attempts.get(id) ?? 0) + 1);
  while (!opened.has(id)) {
    heartbeat('here');
    await sleep(50);
  }
  return `${id} done`;
}
