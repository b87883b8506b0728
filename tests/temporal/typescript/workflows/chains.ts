import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  ApplicationFailure,
  CancellationScope,
  ChildWorkflowCancellationType,
  ChildWorkflowFailure,
  condition,
  continueAsNew,
  defineSignal,
  executeChild,
  getExternalWorkflowHandle,
  ParentClosePolicy,
  setHandler,
  startChild,
  workflowInfo,
} from '@temporalio/workflow';

export const release = defineSignal('release');

export async function child(how: string): Promise<string> {
  let go = false;
  setHandler(release, () => {
    go = true;
  });
  if (how === 'fail') throw ApplicationFailure.create({ message: 'the child fails', type: 'Childish' });
  if (how === 'wait') await condition(() => go);
  if (how === 'again') await continueAsNew<typeof child>('done');
  return `child says ${how}`;
}

const childId = () => `${workflowInfo().workflowId}-child`;

export async function parent(how: string): Promise<string> {
  try {
    return await executeChild(child, { args: [how], workflowId: childId(), staticSummary: 'a child' });
  } catch (error) {
    if (error instanceof ChildWorkflowFailure) return `${error.cause!.constructor.name}: ${error.cause!.message}`;
    if (error instanceof WorkflowExecutionAlreadyStartedError) return 'taken';
    throw error;
  }
}

export async function parentOfMany(count: number): Promise<string[]> {
  return await Promise.all(Array.from({ length: count }, (_, i) => executeChild(child, { args: [`${i}`] })));
}

/** Starts a child with a policy and ends at once. */
export async function leaves(policy: string): Promise<string> {
  const options = { args: ['wait'], workflowId: childId(), parentClosePolicy: policy as ParentClosePolicy } as const;
  return (await startChild(child, options as any)).firstExecutionRunId;
}

export async function signalsChild(): Promise<string> {
  const handle = await startChild(child, { args: ['wait'] });
  await handle.signal(release);
  return await handle.result();
}

export async function cancelsChild(how: string, early: boolean): Promise<string> {
  const scope = new CancellationScope();
  let started = false;
  const options = { args: ['wait'], workflowId: childId(), cancellationType: how as ChildWorkflowCancellationType };
  const result = scope.run(async () => {
    const handle = await startChild(child, options as any);
    started = true;
    return await handle.result();
  });
  if (!early) await Promise.race([condition(() => started), result.catch(() => undefined)]);
  scope.cancel();
  try {
    return `${await result}`;
  } catch (error) {
    const said = error instanceof ChildWorkflowFailure ? error.cause! : (error as Error);
    return said.constructor.name;
  }
}

export async function toOthers(id: string, how: string): Promise<string> {
  const other = getExternalWorkflowHandle(id);
  try {
    await (how === 'cancel' ? other.cancel() : other.signal(release));
  } catch (error) {
    return (error as Error).constructor.name;
  }
  return 'sent';
}

export async function counts(now: number, upto: number): Promise<number> {
  if (now < upto) await continueAsNew<typeof counts>(now + 1, upto);
  return now;
}

export async function retried(fails: number): Promise<number> {
  const { attempt } = workflowInfo();
  if (attempt <= fails) throw ApplicationFailure.create({ message: `try ${attempt}` });
  return attempt;
}

export async function periodic(): Promise<number> {
  const last = workflowInfo().lastResult as number | undefined;
  return (last ?? 0) + 1;
}
