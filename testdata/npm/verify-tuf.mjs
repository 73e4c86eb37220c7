// node verify-tuf.mjs METADATA_DIR VERSION: the stock TUF models check the root
// by itself and targets, snapshot and timestamp by the root. Exit 0: all hold.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Metadata, MetadataKind } from '@tufjs/models';

const [dir, version] = process.argv.slice(2);
const read = (kind, name) => Metadata.fromJSON(kind, JSON.parse(readFileSync(join(dir, name), 'utf8')));
try {
  const root = read(MetadataKind.Root, '1.root.json');
  root.verifyDelegate('root', root);
  root.verifyDelegate('targets', read(MetadataKind.Targets, `${version}.targets.json`));
  root.verifyDelegate('snapshot', read(MetadataKind.Snapshot, `${version}.snapshot.json`));
  root.verifyDelegate('timestamp', read(MetadataKind.Timestamp, 'timestamp.json'));
  console.log('ok');
} catch (e) {
  console.error(e.name, e.message);
  process.exit(1);
}
