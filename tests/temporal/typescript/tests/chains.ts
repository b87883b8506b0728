// Executions that act on each other: children and their close policies, continue-as-new, workflow retries, cron, signals and cancels to others.
import * as assert from 'node:assert/strict';
import { WorkflowFailedError } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { temporal } from '@temporalio/proto';
import { attributes, DONE, Expected, nameOf, num, raises, Stage, STARTED } from '../harness';
import * as w from '../workflows';

const { ContinueAsNewInitiator } = temporal.api.enums.v1;
const BORN = ['StartChildWorkflowExecutionInitiated', 'ChildWorkflowExecutionStarted', 'task'];

const childOf = (stage: Stage, handle: { workflowId: string }) => stage.handle(`${handle.workflowId}-child`);

export async function aChildGivesItsResult(stage: Stage) {
  const [handle, result] = await stage.run(w.parent, ['hello']);
  assert.equal(result, 'child says hello');
  const workflowId = `${handle.workflowId}-child`;
  await stage.check(handle, [
    STARTED,
    'task',
    ['StartChildWorkflowExecutionInitiated', { workflowId, 'workflowType.name': 'child' }],
    ['ChildWorkflowExecutionStarted', { initiatedEventId: 5 }],
    'task',
    ['ChildWorkflowExecutionCompleted', { initiatedEventId: 5, startedEventId: 6 }],
    'task',
    DONE,
  ]);
  const child = await stage.check(childOf(stage, handle), [STARTED, 'task', DONE]);
  const begun = attributes(child[0]);
  assert.equal(begun.parentWorkflowExecution.runId, handle.firstExecutionRunId);
  assert.equal(begun.rootWorkflowExecution.workflowId, handle.workflowId);
  assert.equal(num(begun.parentInitiatedEventId), 5);
  assert.equal(await (await childOf(stage, handle).describe()).staticSummary(), 'a child', 'what its parent says of it');
}

export async function aChildsFailureReachesTheParent(stage: Stage) {
  const [handle, result] = await stage.run(w.parent, ['fail']);
  assert.match(result, /ApplicationFailure: the child fails/);
  const closed: Expected = ['ChildWorkflowExecutionFailed', { 'failure.message': 'the child fails' }];
  await stage.check(handle, [STARTED, 'task', ...BORN, closed, 'task', DONE]);
}

export async function aChildMayBeTerminatedOrCancelledFromOutside(stage: Stage) {
  for (const [how, kind, name] of [
    ['terminate', 'TerminatedFailure', 'ChildWorkflowExecutionTerminated'],
    ['cancel', 'CancelledFailure', 'ChildWorkflowExecutionCanceled'],
  ] as const) {
    const handle = await stage.start(w.parent, ['wait']);
    await stage.until(handle, 'ChildWorkflowExecutionStarted');
    const child = childOf(stage, handle);
    await child[how]();
    assert.ok(((await handle.result()) as string).startsWith(kind));
    await stage.check(handle, [STARTED, 'task', ...BORN, name, 'task', DONE]);
    await stage.check(child);
  }
}

export async function aChildWhoseIdIsTakenDoesNotStart(stage: Stage) {
  const workflowId = stage.id();
  const taken = await stage.start(w.child, ['wait'], { workflowId: `${workflowId}-child` });
  const [handle, result] = await stage.run(w.parent, ['x'], { workflowId });
  assert.equal(result, 'taken');
  const failed = ['StartChildWorkflowExecutionInitiated', 'StartChildWorkflowExecutionFailed'];
  await stage.check(handle, [STARTED, 'task', ...failed, 'task', DONE]);
  await taken.terminate();
}

export async function manyChildrenAtOnce(stage: Stage) {
  const [handle, result] = await stage.run(w.parentOfMany, [20]);
  assert.deepEqual(result, Array.from({ length: 20 }, (_, i) => `child says ${i}`));
  await stage.check(handle);
}

export async function aChildsChainIsOneChild(stage: Stage) {
  const [handle, result] = await stage.run(w.parent, ['again']);
  assert.equal(result, 'child says done');
  await stage.check(handle, [STARTED, 'task', ...BORN, 'ChildWorkflowExecutionCompleted', 'task', DONE]);
}

export async function whatBecomesOfChildrenWhenTheirParentCloses(stage: Stage) {
  for (const [policy, status] of [
    ['TERMINATE', 'TERMINATED'],
    ['REQUEST_CANCEL', 'CANCELLED'],
    ['ABANDON', 'COMPLETED'],
  ]) {
    const [handle, runId] = await stage.run(w.leaves, [policy]);
    const child = childOf(stage, handle);
    if (policy === 'ABANDON') {
      assert.equal((await child.describe()).status.name, 'RUNNING');
      await child.signal(w.release);
    }
    const told = await stage.eventually(`the end of the child, ${policy}`, async () => {
      const now = await child.describe();
      return now.status.name !== 'RUNNING' && now;
    });
    assert.equal(told.status.name, status);
    assert.equal(told.runId, runId);
    assert.equal(told.parentExecution!.workflowId, handle.workflowId);
    await stage.check(handle);
    await stage.check(child);
  }
}

export async function aParentSignalsItsChild(stage: Stage) {
  const [handle, result] = await stage.run(w.signalsChild);
  assert.equal(result, 'child says wait');
  const names = (await stage.check(handle)).map(nameOf);
  assert.ok(names.includes('ExternalWorkflowExecutionSignaled'), String(names));
}

export async function aParentCancelsItsChild(stage: Stage) {
  for (const how of ['WAIT_CANCELLATION_COMPLETED', 'WAIT_CANCELLATION_REQUESTED', 'TRY_CANCEL', 'ABANDON']) {
    const [handle, result] = await stage.run(w.cancelsChild, [how, false]);
    assert.equal(result, 'CancelledFailure', how);
    const names = (await stage.check(handle)).map(nameOf);
    assert.equal(names.includes('RequestCancelExternalWorkflowExecutionInitiated'), how !== 'ABANDON', `${how}: ${names}`);
    if (how === 'WAIT_CANCELLATION_COMPLETED') assert.ok(names.includes('ChildWorkflowExecutionCanceled'), String(names));
  }
}

export async function aChildCancelledBeforeItStarted(stage: Stage) {
  const [handle, result] = await stage.run(w.cancelsChild, ['WAIT_CANCELLATION_COMPLETED', true]);
  assert.equal(result, 'CancelledFailure');
  const names = (await stage.check(handle)).map(nameOf);
  assert.ok(!names.includes('StartChildWorkflowExecutionInitiated'), String(names));
}

export async function signalsAndCancelsReachOthers(stage: Stage) {
  let other = await stage.start(w.child, ['wait']);
  let [handle, result] = await stage.run(w.toOthers, [other.workflowId, 'signal']);
  assert.equal(result, 'sent');
  assert.equal(await other.result(), 'child says wait');
  const signalled = ['SignalExternalWorkflowExecutionInitiated', 'ExternalWorkflowExecutionSignaled'];
  await stage.check(handle, [STARTED, 'task', ...signalled, 'task', DONE]);
  other = await stage.start(w.child, ['wait']);
  [handle, result] = await stage.run(w.toOthers, [other.workflowId, 'cancel']);
  assert.equal(result, 'sent');
  const error = await raises(WorkflowFailedError, other.result());
  assert.ok(error.cause instanceof CancelledFailure);
  const cancelled = ['RequestCancelExternalWorkflowExecutionInitiated', 'ExternalWorkflowExecutionCancelRequested'];
  await stage.check(handle, [STARTED, 'task', ...cancelled, 'task', DONE]);
}

export async function whatIsSentToNobodyFails(stage: Stage) {
  for (const how of ['signal', 'cancel']) {
    const [handle, result] = await stage.run(w.toOthers, [stage.id('nobody'), how]);
    assert.notEqual(result, 'sent');
    const names = (await stage.check(handle)).map(nameOf);
    assert.match(names[5], /ExternalWorkflowExecutionFailed/);
  }
}

export async function continueAsNewIsAChain(stage: Stage) {
  const [handle, result] = await stage.run(w.counts, [0, 3]);
  assert.equal(result, 3);
  const first = stage.handle(handle.workflowId, handle.firstExecutionRunId);
  const events = await stage.check(first, [STARTED, 'task', 'WorkflowExecutionContinuedAsNew']);
  const second = stage.handle(handle.workflowId, attributes(events[4]).newExecutionRunId);
  const begun = attributes((await stage.check(second, [STARTED, 'task', 'WorkflowExecutionContinuedAsNew']))[0]);
  assert.equal(begun.continuedExecutionRunId, handle.firstExecutionRunId);
  assert.equal(begun.initiator, ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_WORKFLOW);
  await stage.check(handle);
}

export async function aFailedWorkflowIsTriedAgain(stage: Stage) {
  const retry = { initialInterval: '50ms', maximumAttempts: 5 };
  const [handle, result] = await stage.run(w.retried, [2], { retry });
  assert.equal(result, 3);
  const first = stage.handle(handle.workflowId, handle.firstExecutionRunId);
  const events = await stage.check(first, [STARTED, 'task', ['WorkflowExecutionFailed', { 'failure.message': 'try 1' }]]);
  const second = stage.handle(handle.workflowId, attributes(events[4]).newExecutionRunId);
  const begun = attributes((await stage.check(second))[0]);
  assert.equal(begun.attempt, 2);
  assert.equal(begun.initiator, ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_RETRY);
  assert.equal(begun.continuedFailure.message, 'try 1');
  const bounded = await stage.start(w.retried, [9], { retry: { initialInterval: '20ms', maximumAttempts: 2 } });
  const error = await raises(WorkflowFailedError, bounded.result());
  assert.equal((error.cause as ApplicationFailure).message, 'try 2');
}

export async function cronStartsAgainBehindEachEnd(stage: Stage) {
  const handle = await stage.start(w.periodic, [], { cronSchedule: '@every 1s' });
  const { workflowId, firstExecutionRunId } = handle;
  const begun = await stage.eventually('a second run', async () => {
    const [first] = await stage.events(stage.handle(workflowId));
    return attributes(first).lastCompletionResult?.payloads?.length && attributes(first);
  });
  assert.equal(begun.initiator, ContinueAsNewInitiator.CONTINUE_AS_NEW_INITIATOR_CRON_SCHEDULE);
  await stage.handle(workflowId).terminate();
  const events = await stage.check(stage.handle(workflowId, firstExecutionRunId), [STARTED, 'task', DONE]);
  assert.ok(attributes(events[events.length - 1]).newExecutionRunId);
}
