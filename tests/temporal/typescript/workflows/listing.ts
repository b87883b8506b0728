import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common';
import { condition, defineSignal, setHandler, upsertMemo, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';

export const finish = defineSignal('finish');
export const CUSTOMER = defineSearchAttributeKey('TsCustomer', SearchAttributeType.KEYWORD);
export const AMOUNT = defineSearchAttributeKey('TsAmount', SearchAttributeType.INT);
export const RATE = defineSearchAttributeKey('TsRate', SearchAttributeType.DOUBLE);
export const PAID = defineSearchAttributeKey('TsPaid', SearchAttributeType.BOOL);
export const DUE = defineSearchAttributeKey('TsDue', SearchAttributeType.DATETIME);
export const TAGS = defineSearchAttributeKey('TsTags', SearchAttributeType.KEYWORD_LIST);

/** An order that changes its own attributes and notes, tells what it then sees, and waits for its end. */
export async function order(amount: number): Promise<object> {
  let done = false;
  setHandler(finish, () => {
    done = true;
  });
  upsertSearchAttributes([
    { key: AMOUNT, value: amount },
    { key: TAGS, value: ['new', 'urgent'] },
    { key: PAID, value: null },
  ]);
  upsertMemo({ stage: 'open', gone: null });
  await condition(() => done);
  return { memo: workflowInfo().memo };
}
