// Runs tests of this folder against a server: `node run.cjs ADDRESS NAMESPACE FILE... [--only NAME]`.
//
// The packages are found by NODE_PATH. The sources are TypeScript: each is stripped of its types as it is loaded.
'use strict';
const swc = require('@swc/core');

require.extensions['.ts'] = (module, filename) => {
  const { code } = swc.transformFileSync(filename, {
    jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
    module: { type: 'commonjs' },
    sourceMaps: 'inline',
  });
  module._compile(code, filename);
};

require('./main.ts').main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  }
);
