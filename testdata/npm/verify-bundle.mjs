// node verify-bundle.mjs BUNDLE PUB.pem: the stock Sigstore verifier checks a
// bundle that keyrite wrote, with the one key in PUB.pem. Exit 0: it holds; the
// statement is printed. Exit 1: it does not.
import { readFileSync } from 'node:fs';
import { createPublicKey } from 'node:crypto';
import { bundleFromJSON } from '@sigstore/bundle';
import { Verifier, toSignedEntity } from '@sigstore/verify';

const [bundlePath, keyPath] = process.argv.slice(2);
try {
  const bundle = bundleFromJSON(JSON.parse(readFileSync(bundlePath, 'utf8')));
  const publicKey = createPublicKey(readFileSync(keyPath));
  const trust = {
    certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [],
    publicKey: () => ({ publicKey, validFor: () => true }),
  };
  const verifier = new Verifier(trust, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0, tsaThreshold: 0 });
  verifier.verify(toSignedEntity(bundle));
  console.log(Buffer.from(bundle.content.dsseEnvelope.payload).toString('utf8'));
} catch (e) {
  console.error(e.code ?? e.name, e.message);
  process.exit(1);
}
