// Judges BLS signatures by @noble/curves: CASES (JSON). Keys are in G2 and signatures in G1: its "short signatures".
//
// One line for each case: name, tab, "accepted" or "refused", tab, reason.
"use strict";
const fs = require("node:fs");
const { bls12_381: curve } = require("@noble/curves/bls12-381");

const short = curve.shortSignatures;

function point(group, text) {
  const read = group.Point.fromHex(text);
  read.assertValidity();
  if (read.is0()) throw new Error("the point at infinity");
  if (!read.isTorsionFree()) throw new Error("not in the group");
  return read;
}

function judge(given) {
  const hashed = short.hash(Buffer.from(given.message, "hex"), given.dst);
  const keys = given.keys.map((text) => point(curve.G2, text));
  const signature = point(curve.G1, given.signature);
  if (given.secrets) {
    const halves = given.secrets.map((secret) => short.getPublicKey(secret).toHex());
    if (halves.join() !== given.keys.join()) throw new Error("a secret key has another public half");
    const made = short.aggregateSignatures(given.secrets.map((secret) => short.sign(hashed, secret)));
    if (made.toHex() !== given.signature) throw new Error("the secret keys make another signature");
  }
  if (!short.verify(signature, hashed, short.aggregatePublicKeys(keys))) throw new Error("the pairings differ");
}

for (const given of JSON.parse(fs.readFileSync(process.argv[2], "utf8"))) {
  try {
    judge(given);
    console.log([given.name, "accepted", ""].join("\t"));
  } catch (error) {
    console.log([given.name, "refused", String(error.message).split("\n")[0]].join("\t"));
  }
}
