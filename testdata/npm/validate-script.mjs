// node validate-script.mjs SCHEMA FILE…: a stock JSON Schema validator compiles
// the schema in its strict mode and checks each file (JSON). Exit 0: all are valid.
import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';

const [schema, ...files] = process.argv.slice(2);
const read = (path) => JSON.parse(readFileSync(path, 'utf8'));
const validate = new Ajv2020({ strict: true, strictRequired: false, strictTypes: false }).compile(read(schema));
let bad = 0;
for (const f of files) {
  const good = validate(read(f));
  console.log(f.split('/').pop(), good ? 'valid' : 'refused ' + validate.errors[0].instancePath + ' ' + validate.errors[0].message);
  if (!good) bad++;
}
process.exit(bad ? 1 : 0);
