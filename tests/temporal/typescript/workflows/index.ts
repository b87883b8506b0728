// All workflows, in one bundle.
export * from './activities';
export * from './chains';
export * from './control';
export * from './crashes';
export * from './listing';
export * from './updates';
