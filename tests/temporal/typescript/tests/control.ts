// Timers, signals, queries, cancellation, termination, resets, starts with their policies, failing workflow tasks, patches, the cache.
import * as assert from 'node:assert/strict';
import { QueryNotRegisteredError, WorkflowFailedError, WorkflowNotFoundError, WorkflowHandle } from '@temporalio/client';
import {
  ApplicationFailure,
  CancelledFailure,
  TerminatedFailure,
  TimeoutFailure,
  WorkflowExecutionAlreadyStartedError,
} from '@temporalio/common';
import { temporal } from '@temporalio/proto';
import { attributes, DONE, nameOf, num, raises, shape, Stage, STARTED } from '../harness';
import * as w from '../workflows';

const { WorkflowTaskFailedCause } = temporal.api.enums.v1;
const SIGNAL = 'WorkflowExecutionSignaled';

export async function timersFireAndAreCancelled(stage: Stage) {
  const [handle, how] = await stage.run(w.timers);
  assert.equal(how, 'CancelledFailure');
  await stage.check(handle, [
    STARTED,
    'task',
    ['TimerStarted', { timerId: '1' }],
    ['TimerStarted', { timerId: '2' }],
    ['TimerFired', { timerId: '2', startedEventId: 6 }],
    'task',
    ['TimerCanceled', { timerId: '1', startedEventId: 5 }],
    'TimerStarted',
    'TimerFired',
    'task',
    DONE,
  ]);
}

export async function aConditionMayTakeTooLong(stage: Stage) {
  const [handle, seen] = await stage.run(w.impatient);
  assert.equal(seen, 'false');
  await stage.check(handle, [STARTED, 'task', 'TimerStarted', 'TimerFired', 'task', DONE]);
}

export async function signalsBeforeTheFirstTaskAreAllSeen(stage: Stage) {
  const taskQueue = stage.id('q');
  const handle = await stage.start(w.inbox, [], { taskQueue });
  for (const text of ['a', 'b', 'stop']) await handle.signal(w.put, text);
  const result = await stage.withWorker({ taskQueue }, () => handle.result());
  assert.deepEqual(result, ['a', 'b', 'stop']);
  const started = ['WorkflowTaskStarted', { scheduledEventId: 2 }] as [string, object];
  await stage.check(handle, [STARTED, 'WorkflowTaskScheduled', SIGNAL, SIGNAL, SIGNAL, started, 'WorkflowTaskCompleted', DONE]);
}

export async function eachSignalWakesTheWorkflow(stage: Stage) {
  const handle = await stage.start(w.inbox);
  await stage.until(handle, 'task');
  await handle.signal(w.put, 'a');
  await stage.until(handle, 'task', 2);
  await handle.signal(w.put, 'stop');
  assert.deepEqual(await handle.result(), ['a', 'stop']);
  await stage.check(handle, [STARTED, 'task', [SIGNAL, { signalName: 'put' }], 'task', SIGNAL, 'task', DONE]);
}

export async function manySignalsAtOnceLoseNone(stage: Stage) {
  const handle = await stage.start(w.inbox);
  const texts = Array.from({ length: 60 }, (_, i) => `${i}`);
  await Promise.all(texts.map((text) => handle.signal(w.put, text)));
  await handle.signal(w.put, 'stop');
  const result: string[] = await handle.result();
  assert.deepEqual([...result].sort(), [...texts, 'stop'].sort());
  await stage.check(handle);
}

export async function signalsOfAnyNameAreTaken(stage: Stage) {
  const handle = await stage.start(w.anySignal);
  await handle.signal('unheard of');
  await handle.signal('stop');
  assert.deepEqual(await handle.result(), ['unheard of', 'stop']);
  await stage.check(handle);
}

export async function aSignalToWhatIsClosedOrUnknownIsRefused(stage: Stage) {
  const [handle] = await stage.run(w.returns, ['x']);
  await raises(WorkflowNotFoundError, handle.signal('put', 'late'));
  await raises(WorkflowNotFoundError, stage.handle(stage.id()).signal('put', 'x'));
}

export async function signalWithStart(stage: Stage) {
  const workflowId = stage.id();
  const call = (text: string) =>
    stage.client.workflow.signalWithStart(w.inbox, { workflowId, taskQueue: stage.queue, signal: w.put, signalArgs: [text] });
  const first = await call('a');
  const second = await call('stop');
  assert.equal(first.signaledRunId, second.signaledRunId);
  assert.deepEqual(await second.result(), ['a', 'stop']);
  const events = await stage.check(stage.handle(workflowId));
  assert.deepEqual(events.slice(0, 3).map(nameOf), [STARTED, SIGNAL, 'WorkflowTaskScheduled']);
}

export async function queriesOfOpenAndClosedRuns(stage: Stage) {
  const handle = await stage.start(w.inbox);
  assert.deepEqual(await handle.query(w.got), []);
  await handle.signal(w.put, 'a');
  assert.deepEqual(await handle.query(w.got), ['a'], 'a query sees the signals before it');
  assert.equal(await handle.query(w.nth, 0), 'a');
  const failed = await raises(QueryNotRegisteredError, handle.query(w.nth, 9));
  assert.match(failed.message, /there is no 9/);
  await raises(QueryNotRegisteredError, handle.query('nothing'));
  assert.match(await handle.query('__stack_trace'), /condition|inbox/i);
  const told: any = await handle.query('__temporal_workflow_metadata');
  assert.equal(told.definition.type, 'inbox');
  await handle.signal(w.put, 'stop');
  await handle.result();
  assert.deepEqual(await handle.query(w.got), ['a', 'stop']);
  assert.ok(!(await stage.check(handle)).map(nameOf).some((name) => name.includes('Query')));
}

export async function queriesFromManyAtOnce(stage: Stage) {
  const handle = await stage.start(w.inbox);
  await handle.signal(w.put, 'a');
  const answers = await Promise.all(Array.from({ length: 20 }, () => handle.query(w.got)));
  for (const answer of answers) assert.deepEqual(answer, ['a']);
  await handle.signal(w.put, 'stop');
  await handle.result();
  await stage.check(handle);
}

export async function cancellationIsConfirmedBehindACleanUp(stage: Stage) {
  const handle = await stage.start(w.careful, [false]);
  await stage.until(handle, 'TimerStarted');
  await handle.cancel();
  await handle.cancel();
  const error = await raises(WorkflowFailedError, handle.result());
  assert.ok(error.cause instanceof CancelledFailure, String(error.cause));
  await stage.check(handle, [
    STARTED,
    'task',
    'TimerStarted',
    'WorkflowExecutionCancelRequested',
    'task',
    'TimerCanceled',
    'ActivityTaskScheduled',
    'ActivityTaskStarted',
    'ActivityTaskCompleted',
    'task',
    'WorkflowExecutionCanceled',
  ]);
}

export async function cancellationMayBeSwallowed(stage: Stage) {
  const handle = await stage.start(w.careful, [true]);
  await stage.until(handle, 'TimerStarted');
  await handle.cancel();
  assert.equal(await handle.result(), 'cleaned up');
  await stage.check(handle);
}

export async function cancellationBeforeTheFirstTask(stage: Stage) {
  const taskQueue = stage.id('q');
  const handle = await stage.start(w.careful, [false], { taskQueue });
  await handle.cancel();
  const ended = stage.withWorker({ taskQueue }, () => raises(WorkflowFailedError, handle.result()));
  assert.ok((await ended).cause instanceof CancelledFailure);
  const events = await stage.check(handle);
  assert.equal(nameOf(events[2]), 'WorkflowExecutionCancelRequested');
}

export async function terminationIsTheEnd(stage: Stage) {
  const handle = await stage.start(w.careful, [true]);
  await stage.until(handle, 'TimerStarted');
  await handle.terminate('because');
  const error = await raises(WorkflowFailedError, handle.result());
  assert.ok(error.cause instanceof TerminatedFailure);
  await stage.check(handle, [STARTED, 'task', 'TimerStarted', ['WorkflowExecutionTerminated', { reason: 'because' }]]);
  await raises(WorkflowNotFoundError, handle.terminate());
  await raises(WorkflowNotFoundError, handle.cancel());
}

export async function aFailureKeepsItsCauses(stage: Stage) {
  const handle = await stage.start(w.returns, ['fail']);
  const error = await raises(WorkflowFailedError, handle.result());
  assert.ok(error.cause instanceof ApplicationFailure);
  assert.equal(error.cause.type, 'asked');
  assert.deepEqual(error.cause.details, [1, 'two']);
  const inner = error.cause.cause as ApplicationFailure;
  assert.deepEqual([inner.message, inner.type, inner.details], ['the cause', 'Inner', [{ deep: true }]]);
  await stage.check(handle, [STARTED, 'task', ['WorkflowExecutionFailed', { 'failure.cause.message': 'the cause' }]]);
}

export async function aRunTimesOut(stage: Stage) {
  const handle = await stage.start(w.careful, [false], { workflowRunTimeout: '4s' });
  const error = await raises(WorkflowFailedError, handle.result());
  assert.ok(error.cause instanceof TimeoutFailure);
  await stage.check(handle, [STARTED, 'task', 'TimerStarted', 'WorkflowExecutionTimedOut']);
}

export async function anIdHasOneOpenRun(stage: Stage) {
  const handle = await stage.start(w.inbox);
  const { workflowId } = handle;
  await raises(WorkflowExecutionAlreadyStartedError, stage.start(w.inbox, [], { workflowId }));
  const existing = await stage.start(w.inbox, [], { workflowId, workflowIdConflictPolicy: 'USE_EXISTING' });
  assert.equal(existing.firstExecutionRunId, handle.firstExecutionRunId);
  const fresh = await stage.start(w.inbox, [], { workflowId, workflowIdConflictPolicy: 'TERMINATE_EXISTING' });
  assert.notEqual(fresh.firstExecutionRunId, handle.firstExecutionRunId);
  const old = stage.handle(workflowId, handle.firstExecutionRunId);
  const error = await raises(WorkflowFailedError, old.result());
  assert.ok(error.cause instanceof TerminatedFailure);
  await fresh.signal(w.put, 'stop');
  await fresh.result();
  await stage.check(old);
  await stage.check(fresh);
}

export async function aClosedIdIsGivenAnewAsThePolicySays(stage: Stage) {
  const [done] = await stage.run(w.returns, ['x']);
  for (const workflowIdReusePolicy of ['REJECT_DUPLICATE', 'ALLOW_DUPLICATE_FAILED_ONLY'] as const) {
    const again = stage.start(w.returns, ['y'], { workflowId: done.workflowId, workflowIdReusePolicy });
    await raises(WorkflowExecutionAlreadyStartedError, again);
  }
  const [, result] = await stage.run(w.returns, ['y'], { workflowId: done.workflowId });
  assert.equal(result, 'y');
  const failed = await stage.start(w.returns, ['fail']);
  await raises(WorkflowFailedError, failed.result());
  const options = { workflowId: failed.workflowId, workflowIdReusePolicy: 'ALLOW_DUPLICATE_FAILED_ONLY' } as const;
  assert.equal((await stage.run(w.returns, ['z'], options))[1], 'z');
}

export async function aStartMayWait(stage: Stage) {
  const [handle] = await stage.run(w.returns, ['x'], { startDelay: '1s' });
  const events = await stage.check(handle, [STARTED, 'task', DONE]);
  const at = (n: number) => Number(events[n].eventTime!.seconds) * 1e3 + events[n].eventTime!.nanos! / 1e6;
  assert.ok(at(1) - at(0) >= 1000, `${at(1) - at(0)} ms`);
}

export async function anEagerStartNeedsNoPoll(stage: Stage) {
  const [handle, result] = await stage.run(w.returns, ['x'], { requestEagerStart: true });
  assert.equal(result, 'x');
  await stage.check(handle, [[STARTED, { eagerExecutionAccepted: true }], 'task', DONE]);
}

export async function aFailingTaskIsTriedAgainUntilTheCodeIsRepaired(stage: Stage) {
  const handle = await stage.start(w.breaks);
  await stage.until(handle, 'WorkflowTaskFailed');
  await handle.signal(w.put, 'repaired');
  assert.equal(await handle.result(), 'repaired');
  const events = await stage.check(handle);
  const failed = events.find((event) => nameOf(event) === 'WorkflowTaskFailed')!;
  assert.equal(attributes(failed).cause, WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE);
  assert.deepEqual(shape(events).slice(-2), ['task', DONE]);
}

export async function patchesAreMarkersAndSearchAttributes(stage: Stage) {
  const [handle, result] = await stage.run(w.patches, [false]);
  assert.equal(result, 'new new');
  const events = await stage.check(handle);
  const names = events.map(nameOf);
  const marker = names.indexOf('MarkerRecorded');
  assert.equal(attributes(events[marker]).markerName, 'core_patch');
  assert.equal(names[marker + 1], 'UpsertWorkflowSearchAttributes');
  const listed = stage.client.workflow.list({ query: `TemporalChangeVersion = 'newer' AND WorkflowId = '${handle.workflowId}'` });
  assert.equal((await listed[Symbol.asyncIterator]().next()).value.workflowId, handle.workflowId);
  const [old] = await stage.run(w.patches, [true]);
  await stage.check(old);
}

export async function aWorkerWithoutACacheReplaysEveryTask(stage: Stage) {
  const taskQueue = stage.id('q');
  await stage.withWorker({ taskQueue, maxCachedWorkflows: 0 }, async () => {
    const [handle, result] = await stage.run(w.steps, [5], { taskQueue });
    assert.equal(result, 5);
    assert.equal(await handle.query(w.at), 5);
    const [drawn] = await stage.run(w.random, [], { taskQueue });
    await stage.check(drawn);
    await stage.check(handle);
  });
}

export async function aSmallCacheDropsTheLeastUsed(stage: Stage) {
  const taskQueue = stage.id('q');
  await stage.withWorker({ taskQueue, maxCachedWorkflows: 2 }, async () => {
    const handles: WorkflowHandle[] = [];
    for (let i = 0; i < 5; i += 1) {
      handles.push(await stage.start(w.inbox, [], { taskQueue }));
      await stage.until(handles[i], 'task');
    }
    for (const round of ['a', 'b']) {
      for (const handle of handles) {
        await handle.signal(w.put, round);
        await stage.until(handle, 'task', round === 'a' ? 2 : 3);
      }
    }
    for (const handle of handles) {
      assert.deepEqual(await handle.query(w.got), ['a', 'b']);
      await handle.signal(w.put, 'stop');
      assert.deepEqual(await handle.result(), ['a', 'b', 'stop']);
      const names = (await stage.check(handle)).map(nameOf);
      assert.ok(!names.includes('WorkflowTaskFailed'), String(names));
    }
  });
}

export async function aStickyWorkerThatLeavesIsReplaced(stage: Stage) {
  const taskQueue = stage.id('q');
  const handle = await stage.start(w.inbox, [], { taskQueue });
  await stage.withWorker({ taskQueue }, async () => {
    await handle.signal(w.put, 'a');
    assert.deepEqual(await handle.query(w.got), ['a']);
  });
  await handle.signal(w.put, 'stop');
  await stage.withWorker({ taskQueue }, async () => {
    assert.deepEqual(await handle.result(), ['a', 'stop']);
    assert.deepEqual(await handle.query(w.got), ['a', 'stop']);
  });
  await stage.check(handle);
}

export async function aResetGoesOnFromATask(stage: Stage) {
  const handle = await stage.start(w.sums);
  await handle.signal(w.put, '10');
  assert.equal(await handle.result(), 16);
  const first = await stage.check(handle);
  const completed = first.filter((event) => nameOf(event) === 'WorkflowTaskCompleted').map((event) => num(event.eventId));
  const { runId } = await stage.connection.workflowService.resetWorkflowExecution({
    namespace: stage.namespace,
    workflowExecution: { workflowId: handle.workflowId, runId: handle.firstExecutionRunId },
    reason: 'a test',
    requestId: stage.id(),
    workflowTaskFinishEventId: completed[1],
  });
  const again = stage.handle(handle.workflowId, runId);
  assert.equal(await again.result(), 16);
  const failed = (await stage.check(again)).find((event) => nameOf(event) === 'WorkflowTaskFailed')!;
  assert.equal(attributes(failed).cause, WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW);
  assert.equal(attributes(failed).baseRunId, handle.firstExecutionRunId);
}

export async function descriptionsSayWhereARunStands(stage: Stage) {
  const options = { memo: { note: 'here' }, staticSummary: 'a summary', staticDetails: 'the details' };
  const handle = await stage.start(w.inbox, [], options);
  let told = await handle.describe();
  assert.equal(told.status.name, 'RUNNING');
  assert.deepEqual([told.type, told.taskQueue, told.runId], ['inbox', stage.queue, handle.firstExecutionRunId]);
  assert.deepEqual(told.memo, { note: 'here' });
  assert.equal(await told.staticSummary(), 'a summary');
  assert.equal(await told.staticDetails(), 'the details');
  assert.equal(told.closeTime, undefined);
  await handle.signal(w.put, 'stop');
  await handle.result();
  told = await handle.describe();
  assert.equal(told.status.name, 'COMPLETED');
  assert.equal(told.historyLength, (await stage.check(handle)).length);
  assert.ok(told.closeTime! >= told.startTime);
}

export async function aWorkflowKnowsItself(stage: Stage) {
  const [handle, told] = await stage.run(w.tellsOfItself, [], { memo: { note: 'here' } });
  const events = await stage.check(handle, [STARTED, 'task', DONE]);
  const { firstExecutionRunId: runId, workflowId } = handle;
  const { startTime, ...rest } = told;
  const expected = { workflowId, runId, firstExecutionRunId: runId, attempt: 1, taskQueue: stage.queue };
  assert.deepEqual(rest, { ...expected, namespace: stage.namespace, workflowType: 'tellsOfItself', memo: { note: 'here' } });
  assert.equal(startTime, Math.floor(Number(events[0].eventTime!.seconds) * 1e3 + events[0].eventTime!.nanos! / 1e6));
}
