import {
  allHandlersFinished,
  ApplicationFailure,
  condition,
  currentUpdateInfo,
  defineQuery,
  defineSignal,
  defineUpdate,
  setHandler,
  sleep,
} from '@temporalio/workflow';

export const deposit = defineUpdate<number, [number, boolean?]>('deposit');
export const whichUpdate = defineUpdate<string, []>('whichUpdate');
export const total = defineQuery<number>('total');
export const close = defineSignal('close');

/** An account: amounts are validated, one of them is unlucky. */
export async function account(): Promise<number> {
  let sum = 0;
  let closed = false;
  setHandler(
    deposit,
    async (amount, slowly) => {
      if (slowly) await sleep(300);
      if (amount === 13) throw ApplicationFailure.create({ message: 'unlucky' });
      sum += amount;
      return sum;
    },
    {
      validator: (amount) => {
        if (amount < 0) throw new Error('negative');
      },
    }
  );
  setHandler(whichUpdate, () => currentUpdateInfo()!.id);
  setHandler(total, () => sum);
  setHandler(close, () => {
    closed = true;
  });
  await condition(() => closed && allHandlersFinished());
  return sum;
}
