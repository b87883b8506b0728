// Search attributes of each type, memos, lists and counts.
import * as assert from 'node:assert/strict';
import { TypedSearchAttributes } from '@temporalio/common';
import { temporal } from '@temporalio/proto';
import { attributes, DONE, Stage, STARTED } from '../harness';
import * as w from '../workflows';

const { IndexedValueType } = temporal.api.enums.v1;
const DUE = new Date('2031-05-06T07:08:09.123Z');

export async function attributesAndMemosAreKeptChangedAndFound(stage: Stage) {
  await stage.connection.operatorService.addSearchAttributes({
    namespace: stage.namespace,
    searchAttributes: {
      TsCustomer: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
      TsAmount: IndexedValueType.INDEXED_VALUE_TYPE_INT,
      TsRate: IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
      TsPaid: IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
      TsDue: IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
      TsTags: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
    },
  });
  const customer = stage.id('customer');
  const handle = await stage.start(w.order, [40], {
    typedSearchAttributes: [
      { key: w.CUSTOMER, value: customer },
      { key: w.RATE, value: 0.5 },
      { key: w.PAID, value: false },
      { key: w.DUE, value: DUE },
    ],
    memo: { stage: 'new', gone: 'soon', kept: [1, 2] },
  });
  const found = async (query: string) => {
    const ids: string[] = [];
    for await (const run of stage.client.workflow.list({ query: `TsCustomer = '${customer}' AND ${query}` })) ids.push(run.workflowId);
    return ids;
  };
  assert.deepEqual(await found('(TsPaid = false OR TsAmount = 40)'), [handle.workflowId], 'a list sees a start at once');
  await stage.until(handle, 'task');

  const told = await handle.describe();
  const typed: TypedSearchAttributes = told.typedSearchAttributes;
  assert.equal(typed.get(w.CUSTOMER), customer);
  assert.equal(typed.get(w.AMOUNT), 40);
  assert.equal(typed.get(w.RATE), 0.5);
  assert.equal(typed.get(w.PAID), undefined, 'it was taken away');
  assert.deepEqual(typed.get(w.DUE), DUE);
  assert.deepEqual(typed.get(w.TAGS), ['new', 'urgent']);
  assert.deepEqual(told.memo, { stage: 'open', kept: [1, 2] });

  assert.deepEqual(await found("TsAmount > 39 AND TsTags IN ('urgent') AND TsDue > '2030-01-01T00:00:00Z'"), [handle.workflowId]);
  assert.deepEqual(await found('TsPaid IS NULL'), [handle.workflowId]);
  assert.deepEqual(await found('TsAmount < 40'), []);
  await handle.signal(w.finish);
  assert.deepEqual(await handle.result(), { memo: { stage: 'open', kept: [1, 2] } });
  const expected = ['UpsertWorkflowSearchAttributes', 'WorkflowPropertiesModified', 'WorkflowExecutionSignaled', 'task', DONE];
  const events = await stage.check(handle, [STARTED, 'task', ...expected]);
  assert.ok('TsAmount' in attributes(events[4]).searchAttributes.indexedFields);
}

export async function countsAreGrouped(stage: Stage) {
  const workflowId = stage.id('counted');
  await stage.run(w.returns, ['x'], { workflowId: `${workflowId}-a` });
  await stage.run(w.returns, ['x'], { workflowId: `${workflowId}-b` });
  const open = await stage.start(w.inbox, [], { workflowId: `${workflowId}-c` });
  const query = `WorkflowId STARTS_WITH '${workflowId}'`;
  assert.equal((await stage.client.workflow.count(query)).count, 3);
  const grouped = await stage.client.workflow.count(`${query} GROUP BY ExecutionStatus`);
  const byStatus = new Map(grouped.groups.map(({ count, groupValues }) => [String(groupValues[0]), count]));
  assert.deepEqual([byStatus.get('Completed'), byStatus.get('Running'), grouped.count], [2, 1, 3]);
  const pages = stage.client.workflow.list({ query, pageSize: 1 });
  const ids: string[] = [];
  for await (const run of pages) ids.push(run.workflowId);
  assert.equal(new Set(ids).size, 3);
  await open.terminate();
}

export async function historiesOfManyRunsAreFetchedAtOnce(stage: Stage) {
  const workflowId = stage.id('many');
  for (let i = 0; i < 3; i += 1) await stage.run(w.steps, [2], { workflowId: `${workflowId}-${i}` });
  const list = stage.client.workflow.list({ query: `WorkflowId STARTS_WITH '${workflowId}'` });
  let count = 0;
  for await (const { history } of list.intoHistories()) {
    count += 1;
    assert.ok((history as any).events.length > 5);
  }
  assert.equal(count, 3);
}
