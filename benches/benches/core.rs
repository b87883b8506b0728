//! The core: decide and apply, encode, decode, fold.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use orchestrion_benches::{journal, signal, start, step};
use orchestrion_history::record::{decode_entry, encode_entry};
use orchestrion_history::replay;
use orchestrion_history::state::MutableState;

const EVENTS: usize = 9_999;

fn core(c: &mut Criterion) {
    let records = journal(EVENTS);
    let entry = encode_entry(&records);

    let mut group = c.benchmark_group("per record");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decide and apply a signal", |b| {
        let request = signal();
        let fresh = || {
            let mut state = MutableState::default();
            step(&mut state, 0, &start());
            state
        };
        b.iter_batched_ref(
            fresh,
            |state| step(state, 1, &request),
            BatchSize::SmallInput,
        );
    });
    group.finish();

    let mut group = c.benchmark_group("a history of 10,000 records");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("encode", |b| b.iter(|| encode_entry(&records)));
    group.bench_function("decode", |b| b.iter(|| decode_entry(&entry).unwrap()));
    group.bench_function("fold", |b| b.iter(|| replay::fold(&records).unwrap()));
    group.bench_function("decode and fold", |b| {
        b.iter(|| {
            let mut state = MutableState::default();
            replay::fold_entry(&mut state, &entry).unwrap();
            state
        })
    });
    group.finish();
}

criterion_group!(benches, core);
criterion_main!(benches);
