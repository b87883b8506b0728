// What every file of tests here uses: a stage with a client and a worker, and the check of a history.
//
// A history is checked event by event against the order that is written down, then for what holds of every history (ids, references,
// times, nothing behind the end). The SDK itself replays all of them when the tests are over.
import * as assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import * as path from 'node:path';
import * as readline from 'node:readline';
import { Client, Connection, WorkflowHandle, WorkflowStartOptions } from '@temporalio/client';
import { temporal } from '@temporalio/proto';
import { bundleWorkflowCode, NativeConnection, Worker, WorkerOptions, WorkflowBundleWithSourceMap } from '@temporalio/worker';
import * as activities from './activities';

export type Event = temporal.api.history.v1.IHistoryEvent;
type Message = Record<string, any>;
/** The name of an event, `task` for a workflow task that went well, or one of both with attributes by path. */
export type Expected = string | [string, Message];

const TASK = ['WorkflowTaskScheduled', 'WorkflowTaskStarted', 'WorkflowTaskCompleted'];
const CLOSING = new Set(
  ['Completed', 'Failed', 'TimedOut', 'Canceled', 'Terminated', 'ContinuedAsNew'].map((end) => `WorkflowExecution${end}`)
);
export const STARTED = 'WorkflowExecutionStarted';
export const DONE = 'WorkflowExecutionCompleted';
const EVENTUALLY_MS_MAX = 20_000;

/** `EVENT_TYPE_WORKFLOW_TASK_STARTED` as `WorkflowTaskStarted`. */
export function nameOf(event: Event): string {
  const name = temporal.api.enums.v1.EventType[event.eventType!];
  return name
    .replace('EVENT_TYPE_', '')
    .split('_')
    .map((word) => word[0] + word.slice(1).toLowerCase())
    .join('');
}

export function attributes(event: Event): Message {
  const [, found] = Object.entries(event).find(([key, value]) => key.endsWith('EventAttributes') && value)!;
  return found as Message;
}

export function shape(events: Event[]): string[] {
  const names = events.map(nameOf);
  const short: string[] = [];
  for (let at = 0; at < names.length; ) {
    const task = TASK.every((name, i) => names[at + i] === name);
    short.push(task ? 'task' : names[at]);
    at += task ? 3 : 1;
  }
  return short;
}

/** A number that may have come as a 64 bit one. */
export const num = (value: any): number => (value == null ? 0 : Number(value));

/** What holds of every history, of whatever workflow. */
export function checkSound(events: Event[]): void {
  const ends: Message = { scheduledEventId: 'Scheduled', startedEventId: 'Started', initiatedEventId: 'Initiated' };
  let lastCompleted = 0;
  events.forEach((event, index) => {
    const [id, name, at] = [index + 1, nameOf(event), attributes(event)];
    const here = `${id} ${name}`;
    assert.equal(num(event.eventId), id, `${here} has the id ${event.eventId}`);
    assert.ok(event.eventTime, `${here} has no time`);
    assert.equal(name === STARTED, id === 1, `${name} is event ${id}`);
    for (const [field, end] of Object.entries(ends)) {
      const refers = num(at[field]);
      if (refers === 0) continue;
      assert.ok(refers < id, `${here} refers to ${refers}`);
      assert.ok(nameOf(events[refers - 1]).endsWith(end as string), `${here}: ${refers} is ${nameOf(events[refers - 1])}`);
    }
    const completed = num(at.workflowTaskCompletedEventId);
    if (completed) assert.equal(completed, lastCompleted, `${here}: of the task ${completed}, the last is ${lastCompleted}`);
    if (name === 'WorkflowTaskCompleted') lastCompleted = id;
    if (CLOSING.has(name)) assert.equal(id, events.length, `${here} is followed by ${events.slice(id).map(nameOf)}`);
  });
}

function look(message: any, where: string): any {
  const found = where.split('.').reduce((part, key) => part?.[key], message);
  return found && typeof found === 'object' && 'low' in found ? Number(found) : found;
}

export function checkOrder(events: Event[], expected: Expected[]): void {
  const names = expected.map((entry) => (typeof entry === 'string' ? entry : entry[0]));
  assert.deepEqual(shape(events), names);
  let at = 0;
  for (const entry of expected) {
    if (typeof entry !== 'string') {
      for (const [where, wanted] of Object.entries(entry[1])) {
        assert.deepEqual(look(attributes(events[at]), where), wanted, `event ${at + 1} ${entry[0]}: ${where}`);
      }
    }
    at += entry === 'task' ? 3 : 1;
  }
}

/** The error of that kind which is awaited. */
export async function raises<E extends Error>(kind: new (...args: any[]) => E, awaited: Promise<unknown>): Promise<E> {
  let found: unknown;
  try {
    found = await awaited;
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`expected ${kind.name}, got ${JSON.stringify(found)}`);
}

interface Played {
  test: string;
  workflowId: string;
  history: temporal.api.history.v1.IHistory;
}

/** A client, its worker, and the server behind them. */
export class Stage {
  private constructor(
    readonly client: Client,
    readonly connection: Connection,
    private readonly native: NativeConnection,
    readonly namespace: string,
    readonly queue: string,
    private readonly bundle: WorkflowBundleWithSourceMap,
    private readonly played: Played[],
    private readonly test: string
  ) {}

  static async open(address: string, namespace: string, body: (stage: Stage) => Promise<void>): Promise<void> {
    const packages = process.env.NODE_PATH ?? '';
    const [bundle, native] = await Promise.all([
      bundleWorkflowCode({
        workflowsPath: path.join(__dirname, 'workflows', 'index.ts'),
        // The packages do not lie above the sources.
        webpackConfigHook: (config) => {
          const modules = ['node_modules', packages];
          config.resolve = { ...config.resolve, modules };
          config.resolveLoader = { ...config.resolveLoader, modules };
          return config;
        },
      }),
      NativeConnection.connect({ address }),
    ]);
    // Most is asked over the worker's connection, which eager starts need; the other is the one that applications use.
    const connection = await Connection.connect({ address });
    const client = new Client({ connection: native, namespace });
    const stage = new Stage(client, connection, native, namespace, `q-${randomUUID()}`, bundle, [], '');
    try {
      await stage.withWorker({}, () => body(stage));
    } finally {
      await connection.close();
      await native.close();
    }
  }

  /** The same stage, for a test of that name. */
  of(test: string): Stage {
    return new Stage(this.client, this.connection, this.native, this.namespace, this.queue, this.bundle, this.played, test);
  }

  id(what = 'w'): string {
    return `${what}-${randomUUID()}`;
  }

  async withWorker<T>(options: Partial<WorkerOptions>, body: () => Promise<T>): Promise<T> {
    const worker = await Worker.create({
      connection: this.native,
      namespace: this.namespace,
      taskQueue: this.queue,
      workflowBundle: { code: this.bundle.code },
      activities,
      reuseV8Context: true,
      ...options,
    });
    return await worker.runUntil(body());
  }

  async start(workflow: any, args: any[] = [], options: Partial<WorkflowStartOptions> = {}): Promise<WorkflowHandle & { firstExecutionRunId: string }> {
    const given: any = { workflowId: this.id(), taskQueue: this.queue, args, ...options };
    return (await this.client.workflow.start(workflow, given)) as any;
  }

  async run(workflow: any, args: any[] = [], options: Partial<WorkflowStartOptions> = {}): Promise<[WorkflowHandle & { firstExecutionRunId: string }, any]> {
    const handle = await this.start(workflow, args, options);
    return [handle, await handle.result()];
  }

  handle(workflowId: string, runId?: string): WorkflowHandle {
    return this.client.workflow.getHandle(workflowId, runId);
  }

  async events(handle: WorkflowHandle): Promise<Event[]> {
    return (await handle.fetchHistory()).events!;
  }

  /** The events of a run, after all checks; its replay comes at the end of all tests. */
  async check(handle: WorkflowHandle, expected?: Expected[]): Promise<Event[]> {
    const history = await handle.fetchHistory();
    const events = history.events!;
    checkSound(events);
    if (expected) checkOrder(events, expected);
    this.played.push({ test: this.test, workflowId: handle.workflowId, history });
    return events;
  }

  async replayAll(): Promise<{ test: string; error: string }[]> {
    const played = this.played;
    const failed: { test: string; error: string }[] = [];
    let count = 0;
    const options = { workflowBundle: { code: this.bundle.code }, replayName: this.queue };
    const histories = played.map(({ workflowId, history }) => ({ workflowId, history }));
    for await (const { runId, error } of Worker.runReplayHistories(options, histories)) {
      count += 1;
      if (!error) continue;
      // A run and its reset have the same original run.
      const meant = played.filter(({ history }) => attributes(history.events![0]).originalExecutionRunId === runId);
      for (const { test, history } of meant) failed.push({ test, error: `${error} of ${shape(history.events!)}` });
    }
    assert.equal(count, histories.length, 'each history is replayed');
    return failed;
  }

  /** Waits until `ask` answers something true. */
  async eventually<T>(what: string, ask: () => Promise<T>): Promise<NonNullable<T>> {
    const deadline = Date.now() + EVENTUALLY_MS_MAX;
    for (;;) {
      const answer = await ask();
      if (answer) return answer as NonNullable<T>;
      if (Date.now() > deadline) throw new Error(`never: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Waits until a run's history holds an event of that name. */
  async until(handle: WorkflowHandle, name: string, count = 1): Promise<void> {
    await this.eventually(`${name} in ${handle.workflowId}`, async () => {
      return shape(await this.events(handle)).filter((found) => found === name).length >= count;
    });
  }

  /** Kills the server as a power cut would, and waits until it is back. */
  async kill(): Promise<void> {
    const lines = readline.createInterface({ input: process.stdin });
    const answer = new Promise<string>((resolve) => lines.once('line', resolve));
    process.stdout.write(JSON.stringify({ ask: 'kill' }) + '\n');
    assert.equal((await answer).trim(), 'back');
    lines.close();
  }
}
