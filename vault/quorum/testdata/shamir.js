// Shamir's scheme over GF(2^8) with the polynomial of AES, written from the paper
// for the tests: it shares no code and no tables with the library in use.
// Reads {"op":"combine","shares":[hex]} or {"op":"split","secret":hex,"n":N,"need":T}
// on standard input; a share is the values and then its x coordinate.
'use strict';
const { randomBytes } = require('node:crypto');

function mul(a, b) {
  let out = 0;
  for (; b; b >>= 1) {
    if (b & 1) out ^= a;
    a = a & 0x80 ? (a << 1) ^ 0x11b : a << 1;
  }
  return out;
}
function inv(a) { // a^254
  let out = 1;
  for (let i = 0; i < 254; i++) out = mul(out, a);
  return out;
}
function combine(shares) {
  const x = shares.map((s) => s[s.length - 1]);
  const secret = Buffer.alloc(shares[0].length - 1);
  shares.forEach((s, i) => {
    let l = 1; // Lagrange basis at 0; subtraction is exclusive or
    x.forEach((xj, j) => { if (j !== i) l = mul(l, mul(xj, inv(xj ^ x[i]))); });
    for (let k = 0; k < secret.length; k++) secret[k] ^= mul(s[k], l);
  });
  return secret;
}
function split(secret, n, need) {
  const coefficients = Array.from({ length: need - 1 }, () => randomBytes(secret.length));
  return Array.from({ length: n }, (_, i) => {
    const x = 255 - 7 * i; // any distinct ones but 0
    const out = Buffer.alloc(secret.length + 1, x);
    for (let k = 0; k < secret.length; k++) {
      let y = 0;
      for (let c = need - 2; c >= 0; c--) y = mul(y ^ coefficients[c][k], x);
      out[k] = y ^ secret[k];
    }
    return out;
  });
}

const req = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const out = req.op === 'combine'
  ? combine(req.shares.map((s) => Buffer.from(s, 'hex'))).toString('hex')
  : split(Buffer.from(req.secret, 'hex'), req.n, req.need).map((s) => s.toString('hex'));
console.log(JSON.stringify(out));
