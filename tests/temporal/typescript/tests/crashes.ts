// The server is killed as a power cut would, in each wait of a workflow; no worker is restarted, and everything ends well.
import * as assert from 'node:assert/strict';
import { isGrpcServiceError } from '@temporalio/client';
import { attempts, opened } from '../activities';
import { attributes, DONE, nameOf, Stage, STARTED } from '../harness';
import * as w from '../workflows';

export const ONE_BY_ONE = true;

/** Clients ask again while the server is away; some errors of a broken connection reach the caller all the same. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (let i = 0; i < 200; i += 1) {
    try {
      return await ask();
    } catch (error: any) {
      const broken = [error, error?.cause].some((one) => isGrpcServiceError(one) && [1, 2, 4, 14].includes(one.code));
      if (!broken) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  throw new Error('the server does not come back');
}

export async function inATimer(stage: Stage) {
  const handle = await stage.start(w.waiting, ['timer']);
  await stage.until(handle, 'TimerStarted');
  await stage.kill();
  assert.equal(await patiently(() => handle.result()), 'timer');
  await stage.check(handle, [STARTED, 'task', 'TimerStarted', 'TimerFired', 'task', DONE]);
}

export async function whileAnActivityRuns(stage: Stage) {
  const handle = await stage.start(w.waiting, ['activity']);
  await stage.eventually('its attempt', async () => attempts.get(handle.workflowId));
  await stage.kill();
  opened.add(handle.workflowId);
  assert.equal(await patiently(() => handle.result()), `${handle.workflowId} done`);
  const three = ['ActivityTaskScheduled', 'ActivityTaskStarted', 'ActivityTaskCompleted'];
  await stage.check(handle, [STARTED, 'task', ...three, 'task', DONE]);
}

export async function inABackoff(stage: Stage) {
  const handle = await stage.start(w.waiting, ['backoff']);
  await stage.eventually('the first failure', async () => {
    const { raw } = await handle.describe();
    return raw.pendingActivities?.[0]?.lastFailure;
  });
  await stage.kill();
  assert.equal(await patiently(() => handle.result()), 'attempt 3');
  const started = (await stage.check(handle)).find((event) => nameOf(event) === 'ActivityTaskStarted')!;
  assert.equal(attributes(started).attempt, 3, 'attempts are counted over the crash');
}

export async function whileItWaitsForASignal(stage: Stage) {
  const handle = await stage.start(w.waiting, ['signal']);
  await handle.signal(w.go, 'before');
  await stage.kill();
  assert.deepEqual(await patiently(() => handle.query(w.heard)), ['before']);
  await patiently(() => handle.signal(w.go, 'go'));
  assert.equal(await patiently(() => handle.result()), 'signal');
  const names = (await stage.check(handle)).map(nameOf);
  assert.equal(names.filter((name) => name === 'WorkflowExecutionSignaled').length, 2, String(names));
}

export async function whileAChildRuns(stage: Stage) {
  const handle = await stage.start(w.waiting, ['child']);
  await stage.until(handle, 'ChildWorkflowExecutionStarted');
  await stage.kill();
  const child = stage.handle(`${handle.workflowId}-child`);
  await patiently(() => child.signal(w.go, 'go'));
  assert.equal(await patiently(() => handle.result()), 'signal');
  await stage.check(handle);
  await stage.check(child);
}

export async function whileAnAcceptedUpdateWaits(stage: Stage) {
  const handle = await stage.start(w.waiting, ['update']);
  const update = await handle.startUpdate(w.slowly, { args: ['it'], waitForStage: 'ACCEPTED' });
  const waiting = patiently(() => update.result());
  await stage.kill();
  await patiently(() => handle.signal(w.go, 'go'));
  assert.equal(await waiting, 'it done');
  assert.equal(await patiently(() => handle.result()), 'update');
  const names = (await stage.check(handle)).map(nameOf);
  assert.equal(names.filter((name) => name === 'WorkflowExecutionUpdateAccepted').length, 1, String(names));
}

export async function beforeAnyWorkerTookIt(stage: Stage) {
  const taskQueue = stage.id('q');
  const handle = await stage.start(w.waiting, ['none'], { taskQueue });
  await stage.kill();
  const result = await stage.withWorker({ taskQueue }, () => patiently(() => handle.result()));
  assert.equal(result, 'none');
  await stage.check(handle, [STARTED, 'task', DONE]);
}
