// Updates: validated, rejected, accepted, polled, deduplicated, and sent together with a start.
import * as assert from 'node:assert/strict';
import { WithStartWorkflowOperation, WorkflowHandle, WorkflowNotFoundError, WorkflowUpdateFailedError } from '@temporalio/client';
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import { attributes, DONE, nameOf, raises, Stage, STARTED } from '../harness';
import * as w from '../workflows';

const PAIR = ['WorkflowExecutionUpdateAccepted', 'WorkflowExecutionUpdateCompleted'];

async function close(handle: WorkflowHandle): Promise<number> {
  await handle.signal(w.close);
  return await handle.result();
}

export async function anUpdateChangesAndAnswers(stage: Stage) {
  const handle = await stage.start(w.account);
  await stage.until(handle, 'task');
  assert.equal(await handle.executeUpdate(w.deposit, { args: [5] }), 5);
  assert.equal(await handle.executeUpdate(w.deposit, { args: [2] }), 7);
  assert.equal(await handle.executeUpdate(w.whichUpdate, { updateId: 'my-update' }), 'my-update');
  assert.equal(await close(handle), 7);
  const accepted: [string, object] = ['WorkflowExecutionUpdateAccepted', { 'acceptedRequest.input.name': 'deposit' }];
  const updates = ['task', accepted, PAIR[1], 'task', ...PAIR, 'task', ...PAIR] as any[];
  await stage.check(handle, [STARTED, 'task', ...updates, 'WorkflowExecutionSignaled', 'task', DONE]);
}

export async function aRejectedUpdateLeavesNoTrace(stage: Stage) {
  const handle = await stage.start(w.account);
  await stage.until(handle, 'task');
  const before = await handle.fetchHistory();
  const error = await raises(WorkflowUpdateFailedError, handle.executeUpdate(w.deposit, { args: [-1] }));
  assert.match(String(error.cause), /negative/);
  await raises(WorkflowUpdateFailedError, handle.executeUpdate('nothing', { args: [1] }));
  const after = await handle.fetchHistory();
  assert.deepEqual(after, before);
  assert.equal(await handle.executeUpdate(w.deposit, { args: [1] }), 1);
  assert.equal(await close(handle), 1);
  await stage.check(handle);
}

export async function anUpdateThatFailsAfterItsAcceptanceIsWritten(stage: Stage) {
  const handle = await stage.start(w.account);
  const error = await raises(WorkflowUpdateFailedError, handle.executeUpdate(w.deposit, { args: [13] }));
  assert.match(String(error.cause), /unlucky/);
  await close(handle);
  const events = await stage.check(handle);
  const completed = events.find((event) => nameOf(event) === PAIR[1])!;
  assert.equal(attributes(completed).outcome.failure.message, 'unlucky');
}

export async function anUpdateIsAcceptedFirstAndPolledLater(stage: Stage) {
  const handle = await stage.start(w.account);
  const update = await handle.startUpdate(w.deposit, { args: [3, true], waitForStage: 'ACCEPTED' });
  assert.equal(await update.result(), 3);
  const again = handle.getUpdateHandle<number>(update.updateId);
  assert.equal(await again.result(), 3);
  assert.equal(await close(handle), 3);
  assert.equal(await again.result(), 3, 'long after the end of the run');
  await stage.check(handle);
}

export async function theSameUpdateTwiceIsOne(stage: Stage) {
  const handle = await stage.start(w.account);
  const ids = ['one', 'one', 'two', 'one'];
  await Promise.all(ids.map((updateId) => handle.executeUpdate(w.deposit, { args: [1], updateId })));
  assert.equal(await close(handle), 2);
  const names = (await stage.check(handle)).map(nameOf);
  assert.equal(names.filter((name) => name === PAIR[0]).length, 2, String(names));
}

export async function anUpdateOfWhatIsClosedOrUnknownIsRefused(stage: Stage) {
  const handle = await stage.start(w.account);
  await close(handle);
  await raises(WorkflowNotFoundError, handle.executeUpdate(w.deposit, { args: [1] }));
  await raises(WorkflowNotFoundError, stage.handle(stage.id()).executeUpdate(w.deposit, { args: [1] }));
}

export async function updateWithStart(stage: Stage) {
  const workflowId = stage.id();
  const start = (workflowIdConflictPolicy: 'USE_EXISTING' | 'FAIL') =>
    new WithStartWorkflowOperation(w.account, { workflowId, taskQueue: stage.queue, workflowIdConflictPolicy });
  const [first, second] = [start('USE_EXISTING'), start('USE_EXISTING')];
  const calls = stage.client.workflow;
  assert.equal(await calls.executeUpdateWithStart(w.deposit, { args: [4], startWorkflowOperation: first }), 4);
  const later = { args: [4, true] as [number, boolean], waitForStage: 'ACCEPTED', startWorkflowOperation: second } as const;
  const update = await calls.startUpdateWithStart(w.deposit, later);
  assert.equal(await update.result(), 8);
  const handle = await first.workflowHandle();
  assert.equal((await second.workflowHandle()).workflowId, handle.workflowId);
  const refused = calls.executeUpdateWithStart(w.deposit, { args: [1], startWorkflowOperation: start('FAIL') });
  await raises(WorkflowExecutionAlreadyStartedError, refused);
  const negative = { args: [-1] as [number], startWorkflowOperation: start('USE_EXISTING') };
  await raises(WorkflowUpdateFailedError, calls.executeUpdateWithStart(w.deposit, negative));
  assert.equal(await close(stage.handle(workflowId)), 8);
  await stage.check(stage.handle(workflowId));
}

export async function manyUpdatesInTurnAndAtOnce(stage: Stage) {
  const handle = await stage.start(w.account);
  for (let i = 0; i < 10; i += 1) await handle.executeUpdate(w.deposit, { args: [1] });
  await Promise.all(Array.from({ length: 8 }, () => handle.executeUpdate(w.deposit, { args: [1] })));
  assert.equal(await handle.query(w.total), 18);
  assert.equal(await close(handle), 18);
  await stage.check(handle);
}
