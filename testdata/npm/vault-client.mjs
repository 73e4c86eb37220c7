// node vault-client.mjs URL CA CERT KEY: the stock client for Node against a vault of
// ours, over mutual TLS. Prints ok, or what was not as it expects.
import { readFileSync } from 'node:fs';
import assert from 'node:assert/strict';
import nodeVault from 'node-vault';

const [endpoint, ca, cert, key] = process.argv.slice(2);
const tls = { ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key) };
const vault = nodeVault({ apiVersion: 'v1', endpoint, requestOptions: tls });

// refused wants a status, and says what came instead.
const refused = async (status, ask) => {
  try {
    const got = await ask();
    assert.fail(`wanted ${status}, got ${JSON.stringify(got)}`);
  } catch (e) {
    if (!e.response) throw e;
    assert.equal(e.response.statusCode, status, JSON.stringify(e.response.body));
    return e.response.body;
  }
};

assert.deepEqual(await vault.initialized(), { initialized: true });
assert.equal((await vault.status()).sealed, false);
assert.equal((await vault.health()).initialized, true);

// A token for the certificate.
const login = await vault.write('auth/cert/login', {});
assert.ok(login.auth.client_token.length > 20);
vault.token = login.auth.client_token;
const self = await vault.tokenLookupSelf();
assert.equal(self.data.meta.identity, 'mes');
assert.ok((await vault.tokenRenewSelf({ increment: 60 })).auth.lease_duration > 0);

// KV version 2.
const written = await vault.write('kv/data/line1/node', { data: { user: 'plc', list: [1, { a: null }] }, options: { cas: 0 } });
assert.equal(written.data.version, 1);
const read = await vault.read('kv/data/line1/node');
assert.deepEqual(read.data.data, { user: 'plc', list: [1, { a: null }] });
assert.equal((await vault.update('kv/data/line1/node', { data: { user: 'other' } })).data.version, 2);
assert.deepEqual((await vault.list('kv/metadata/line1')).data.keys, ['node']);
await vault.delete('kv/data/line1/node');
const gone = await refused(404, () => vault.read('kv/data/line1/node'));
assert.ok(gone.data.metadata.deletion_time);
await refused(404, () => vault.read('kv/data/line1/none'));
await refused(400, () => vault.write('kv/data/line1/node', { data: {}, options: { cas: 0 } }));
await refused(403, () => vault.read('kv/data/line2/x'));

// Keys in the token and in the store.
const b64 = Buffer.from('line 1, recipe 7').toString('base64');
const sealed = await vault.encryptData({ name: 'soft', plaintext: b64 });
assert.equal((await vault.decryptData({ name: 'soft', ciphertext: sealed.data.ciphertext })).data.plaintext, b64);
assert.ok((await vault.transitReadKey({ name: 'fwkey' })).data.keys['1'].public_key.startsWith('-----BEGIN PUBLIC KEY-----'));
const signed = await vault.write('transit/sign/fwkey', { input: b64 });
assert.equal((await vault.write('transit/verify/fwkey', { input: b64, signature: signed.data.signature })).data.valid, true);

// What only the charter changes.
for (const ask of [
  () => vault.mount({ mount_point: 'other', type: 'kv' }),
  () => vault.addPolicy({ name: 'all', rules: 'path "*" {}' }),
  () => vault.enableAuth({ mount_point: 'github', type: 'github' }),
  () => vault.tokenCreate({ policies: ['root'] }),
]) {
  const body = await refused(403, ask);
  assert.match(body.keyrite.hint, /^keyrite charter propose /);
}
assert.ok('kv/' in (await vault.mounts()).data);
assert.ok('cert/' in (await vault.auths()).data);

await vault.tokenRevokeSelf();
await refused(403, () => vault.tokenLookupSelf());
console.log('ok');
