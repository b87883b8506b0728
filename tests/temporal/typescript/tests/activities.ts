// Activities: retries, time-outs, heartbeats, cancellation, failures and their retry states, completion from elsewhere, local ones.
import * as assert from 'node:assert/strict';
import { ActivityNotFoundError, WorkflowFailedError } from '@temporalio/client';
import { ActivityFailure, ApplicationFailure, TimeoutFailure } from '@temporalio/common';
import { temporal } from '@temporalio/proto';
import { tokens } from '../activities';
import { attributes, DONE, nameOf, num, raises, Stage, STARTED } from '../harness';
import * as w from '../workflows';

const { PendingActivityState, RetryState, TimeoutType } = temporal.api.enums.v1;
const PAIR = ['ActivityTaskScheduled', 'ActivityTaskStarted'];

async function failureOf(stage: Stage, name: string, args: any[], options: object) {
  const handle = await stage.start(w.oneActivity, [name, args, options]);
  const error = await raises(WorkflowFailedError, handle.result());
  assert.ok(error.cause instanceof ActivityFailure, String(error.cause));
  return { handle, failure: error.cause };
}

export async function anActivityRunsOnce(stage: Stage) {
  const [handle, result] = await stage.run(w.oneActivity, ['echo', ['hello'], {}]);
  assert.equal(result, 'hello');
  const events = await stage.check(handle, [
    STARTED,
    'task',
    ['ActivityTaskScheduled', { activityId: '1', 'activityType.name': 'echo', 'taskQueue.name': stage.queue }],
    ['ActivityTaskStarted', { attempt: 1, scheduledEventId: 5 }],
    ['ActivityTaskCompleted', { scheduledEventId: 5, startedEventId: 6 }],
    'task',
    DONE,
  ]);
  const scheduled = attributes(events[4]);
  for (const field of ['scheduleToCloseTimeout', 'scheduleToStartTimeout', 'startToCloseTimeout', 'heartbeatTimeout']) {
    assert.ok(scheduled[field], `${field} is null`);
  }
  assert.deepEqual([...attributes(events[3]).sdkMetadata.coreUsedFlags].includes(1), true);
}

export async function failuresAreTriedAgainAndOnlyTheEndIsWritten(stage: Stage) {
  const [handle, result] = await stage.run(w.oneActivity, ['flaky', [3], {}]);
  assert.equal(result, 4);
  const started = ['ActivityTaskStarted', { attempt: 4, 'lastFailure.message': 'try 3' }] as [string, object];
  await stage.check(handle, [STARTED, 'task', 'ActivityTaskScheduled', started, 'ActivityTaskCompleted', 'task', DONE]);
}

export async function attemptsAreBounded(stage: Stage) {
  const { handle, failure } = await failureOf(stage, 'flaky', [9], { retry: { maximumAttempts: 3 } });
  assert.equal(failure.retryState, 'MAXIMUM_ATTEMPTS_REACHED');
  assert.ok(failure.cause instanceof ApplicationFailure);
  assert.deepEqual(failure.cause.details, ['detail 3']);
  await stage.check(handle, [
    STARTED,
    'task',
    'ActivityTaskScheduled',
    ['ActivityTaskStarted', { attempt: 3 }],
    ['ActivityTaskFailed', { retryState: RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED, 'failure.message': 'try 3' }],
    'task',
    'WorkflowExecutionFailed',
  ]);
}

export async function failuresThatSaySoAreFinal(stage: Stage) {
  const said = await failureOf(stage, 'flaky', [9, 'final', true], {});
  const listed = await failureOf(stage, 'flaky', [9, 'listed'], { retry: { nonRetryableErrorTypes: ['other', 'listed'] } });
  for (const { handle, failure } of [said, listed]) {
    assert.equal(failure.retryState, 'NON_RETRYABLE_FAILURE');
    const failed = ['ActivityTaskFailed', { retryState: RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE }] as [string, object];
    await stage.check(handle, [STARTED, 'task', ...PAIR, failed, 'task', 'WorkflowExecutionFailed']);
  }
}

export async function aFailureNamesItsOwnDelay(stage: Stage) {
  const [handle, result] = await stage.run(w.oneActivity, ['delayed', [2], { retry: { initialInterval: '1 hour' } }]);
  assert.equal(result, 3);
  await stage.check(handle);
}

export async function startToCloseIsTriedAgainUntilTheEnd(stage: Stage) {
  const options = { startToCloseTimeout: '300ms', retry: { maximumAttempts: 2 } };
  const { handle, failure } = await failureOf(stage, 'sleepy', [20_000], options);
  assert.ok(failure.cause instanceof TimeoutFailure);
  assert.equal(failure.cause.timeoutType, 'START_TO_CLOSE');
  const kind = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE;
  await stage.check(handle, [
    STARTED,
    'task',
    'ActivityTaskScheduled',
    ['ActivityTaskStarted', { attempt: 2 }],
    ['ActivityTaskTimedOut', { 'failure.timeoutFailureInfo.timeoutType': kind }],
    'task',
    'WorkflowExecutionFailed',
  ]);
}

export async function scheduleToStartIsFinal(stage: Stage) {
  const options = { scheduleToStartTimeout: '300ms', taskQueue: stage.id('nobody') };
  const { handle, failure } = await failureOf(stage, 'echo', ['x'], options);
  assert.equal((failure.cause as TimeoutFailure).timeoutType, 'SCHEDULE_TO_START');
  await stage.check(handle, [STARTED, 'task', 'ActivityTaskScheduled', 'ActivityTaskTimedOut', 'task', 'WorkflowExecutionFailed']);
}

export async function heartbeatDetailsReachTheNextAttempt(stage: Stage) {
  const [handle, result] = await stage.run(w.oneActivity, ['beating', [4], { heartbeatTimeout: '2s' }]);
  assert.equal(result[1], 4);
  assert.ok(result[0] >= 1, `the second attempt began at ${result[0]}`);
  await stage.check(handle, [STARTED, 'task', ...PAIR, 'ActivityTaskCompleted', 'task', DONE]);
}

export async function aHeartThatStopsIsATimeOut(stage: Stage) {
  const [handle, result] = await stage.run(w.oneActivity, ['silent', [], { heartbeatTimeout: '400ms' }]);
  assert.equal(result, 7);
  const events = await stage.check(handle, [STARTED, 'task', ...PAIR, 'ActivityTaskCompleted', 'task', DONE]);
  const { lastFailure } = attributes(events[5]);
  assert.equal(lastFailure.timeoutFailureInfo.timeoutType, TimeoutType.TIMEOUT_TYPE_HEARTBEAT);
}

export async function manyActivitiesAtOnce(stage: Stage) {
  const [handle, result] = await stage.run(w.parallelActivities, [20]);
  assert.deepEqual(result, Array.from({ length: 20 }, (_, i) => `${i}`));
  const events = await stage.check(handle);
  assert.equal(events.map(nameOf).filter((name) => name === 'ActivityTaskCompleted').length, 20);
}

/** Cancels an activity that a worker has, in that way. */
async function cancelled(stage: Stage, name: string, how: string) {
  const handle = await stage.start(w.cancelsActivity, [name, how]);
  await stage.eventually('the activity at work', async () => {
    const { raw } = await handle.describe();
    return raw.pendingActivities?.[0]?.state === PendingActivityState.PENDING_ACTIVITY_STATE_STARTED;
  });
  await handle.signal(w.cancelNow);
  return [handle, await handle.result()] as const;
}

export async function aCancelledActivityConfirms(stage: Stage) {
  const [handle, result] = await cancelled(stage, 'cancellable', 'WAIT_CANCELLATION_COMPLETED');
  assert.equal(result, 'CancelledFailure');
  await stage.check(handle, [
    STARTED,
    'task',
    'ActivityTaskScheduled',
    'WorkflowExecutionSignaled',
    'task',
    ['ActivityTaskCancelRequested', { scheduledEventId: 5 }],
    'ActivityTaskStarted',
    ['ActivityTaskCanceled', { latestCancelRequestedEventId: 10 }],
    'task',
    DONE,
  ]);
}

export async function anActivityMayEndWellAllTheSame(stage: Stage) {
  const [handle, result] = await cancelled(stage, 'stubborn', 'WAIT_CANCELLATION_COMPLETED');
  assert.equal(result, 'result done all the same');
  assert.ok((await stage.check(handle)).map(nameOf).includes('ActivityTaskCompleted'));
}

export async function cancellingWithoutWaiting(stage: Stage) {
  for (const how of ['TRY_CANCEL', 'ABANDON']) {
    const [handle, result] = await cancelled(stage, 'cancellable', how);
    assert.equal(result, 'CancelledFailure');
    const names = (await stage.check(handle)).map(nameOf);
    assert.equal(names.includes('ActivityTaskCancelRequested'), how === 'TRY_CANCEL', `${how}: ${names}`);
  }
}

export async function whatNobodyTookIsCancelledAtOnce(stage: Stage) {
  const args = ['echo', 'WAIT_CANCELLATION_COMPLETED', stage.id('nobody')];
  const handle = await stage.start(w.cancelsActivity, args);
  await stage.until(handle, 'task');
  await handle.signal(w.cancelNow);
  assert.equal(await handle.result(), 'CancelledFailure');
  const both = ['ActivityTaskCancelRequested', 'ActivityTaskCanceled'];
  await stage.check(handle, [STARTED, 'task', 'ActivityTaskScheduled', 'WorkflowExecutionSignaled', 'task', ...both, 'task', DONE]);
}

export async function completionFromElsewhere(stage: Stage) {
  const calls = stage.client.activity;
  for (const how of ['token', 'id', 'fail']) {
    const handle = await stage.start(w.oneActivity, ['fromElsewhere', [], { retry: { maximumAttempts: 1 } }]);
    const token = await stage.eventually('a token', async () => tokens.get(handle.workflowId));
    if (how === 'token') {
      await calls.heartbeat(token.taskToken, 'beat');
      await calls.complete(token.taskToken, how);
      await raises(ActivityNotFoundError, calls.complete(token.taskToken, 'twice'));
    } else if (how === 'id') {
      await calls.complete({ workflowId: token.workflowId, runId: token.runId, activityId: token.activityId }, how);
    } else {
      await calls.fail(token.taskToken, ApplicationFailure.create({ message: 'from elsewhere' }));
    }
    if (how === 'fail') {
      const error = await raises(WorkflowFailedError, handle.result());
      assert.equal(error.cause!.cause!.message, 'from elsewhere');
    } else {
      assert.equal(await handle.result(), how);
    }
    await stage.check(handle);
  }
}

export async function localActivitiesAreMarkers(stage: Stage) {
  const [handle, result] = await stage.run(w.localActivity, [2]);
  assert.equal(result, 3);
  await stage.check(handle, [STARTED, 'task', ['MarkerRecorded', { markerName: 'core_local_activity' }], DONE]);
}

export async function aLongLocalActivityKeepsItsTaskAlive(stage: Stage) {
  const [handle, result] = await stage.run(w.longLocalActivity, [], { workflowTaskTimeout: '1500ms' });
  assert.equal(result, 'slept');
  const names = (await stage.check(handle)).map(nameOf);
  assert.ok(names.filter((name) => name === 'WorkflowTaskCompleted').length >= 2, String(names));
  assert.ok(!names.includes('WorkflowTaskTimedOut'), String(names));
}
