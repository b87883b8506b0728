import { condition, defineQuery, defineSignal, defineUpdate, executeChild, proxyActivities, setHandler, sleep, workflowInfo } from '@temporalio/workflow';
import type * as all from '../activities';

export const go = defineSignal<[string]>('go');
export const heard = defineQuery<string[]>('heard');
export const slowly = defineUpdate<string, [string]>('slowly');

/** Waits in the way that it is told to. */
export async function waiting(what: string): Promise<string> {
  const texts: string[] = [];
  setHandler(go, (text) => void texts.push(text));
  setHandler(heard, () => texts);
  setHandler(slowly, async (text) => {
    await condition(() => texts.includes('go'));
    return `${text} done`;
  });
  const { held, flaky } = proxyActivities<typeof all>({
    startToCloseTimeout: '60s',
    heartbeatTimeout: '5s',
    retry: { initialInterval: what === 'backoff' ? '2s' : '50ms', backoffCoefficient: 1 },
  });
  if (what === 'timer') await sleep('3s');
  if (what === 'activity') return await held();
  if (what === 'backoff') return `attempt ${await flaky(2)}`;
  if (what === 'signal' || what === 'update') await condition(() => texts.includes('go'));
  if (what === 'child') return await executeChild(waiting, { args: ['signal'], workflowId: `${workflowInfo().workflowId}-child` });
  return what;
}
