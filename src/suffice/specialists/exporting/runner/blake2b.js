// BLAKE2b (RFC 7693) without a key: digests of up to 64 bytes, in hex.
const MASK = (1n << 64n) - 1n;
const START = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
// In which order each round reads the sixteen words of a block; the last two rounds are as the first two.
const ORDERS = [
  "0123456789abcdef", "ea489fd61c02b753",
  "b8c052fdae367194", "7931dcbe265a40f8",
  "905724afe1bc683d", "2c6a0b834d75fe19",
  "c51fed4a0763928b", "db7ec13950f4862a",
  "6fe9b308c2d714a5", "a2847615fb9e3cd0",
].map((order) => Array.from(order, (digit) => parseInt(digit, 16)));
const MIXED = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

const turned = (x, by) => ((x >> by) | (x << (64n - by))) & MASK;

function compressed(state, words, length, last) {
  const v = [...state, ...START];
  v[12] ^= length;
  if (last) v[14] ^= MASK;
  for (let round = 0; round < 12; round++) {
    const order = ORDERS[round % 10];
    MIXED.forEach(([a, b, c, d], at) => {
      v[a] = (v[a] + v[b] + words[order[2 * at]]) & MASK;
      v[d] = turned(v[d] ^ v[a], 32n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = turned(v[b] ^ v[c], 24n);
      v[a] = (v[a] + v[b] + words[order[2 * at + 1]]) & MASK;
      v[d] = turned(v[d] ^ v[a], 16n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = turned(v[b] ^ v[c], 63n);
    });
  }
  return state.map((own, at) => own ^ v[at] ^ v[at + 8]);
}

/** The digest of some bytes, `size` bytes long. */
export function blake2b(bytes, size) {
  let state = START.map((word, at) => (at ? word : word ^ BigInt(0x01010000 ^ size)));
  const blocks = Math.max(1, Math.ceil(bytes.length / 128));
  const padded = new DataView(new ArrayBuffer(128 * blocks));
  bytes.forEach((byte, at) => padded.setUint8(at, byte));
  for (let block = 0; block < blocks; block++) {
    const words = Array.from({ length: 16 }, (_, at) => padded.getBigUint64(128 * block + 8 * at, true));
    const last = block === blocks - 1;
    state = compressed(state, words, BigInt(last ? bytes.length : 128 * (block + 1)), last);
  }
  const out = new DataView(new ArrayBuffer(64));
  state.forEach((word, at) => out.setBigUint64(8 * at, word, true));
  return Array.from(new Uint8Array(out.buffer, 0, size), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
