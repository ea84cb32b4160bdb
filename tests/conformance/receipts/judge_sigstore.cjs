// Judges bundles by @sigstore/verify, the verifier of npm and GitHub: node judge_sigstore.cjs KEY.pem BUNDLE…
// One line for each bundle: path, tab, "accepted" or "refused", tab, reason. NODE_PATH says where the packages are.
const fs = require("fs");
const crypto = require("crypto");
const { bundleFromJSON } = require("@sigstore/bundle");
const { Verifier, toSignedEntity } = require("@sigstore/verify");

const [keyFile, ...bundles] = process.argv.slice(2);
const publicKey = crypto.createPublicKey(fs.readFileSync(keyFile, "utf8"));
const trusted = {
  certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [],
  publicKey: () => ({ publicKey, validFor: () => true }),
};
const verifier = new Verifier(trusted, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0, tsaThreshold: 0 });
for (const path of bundles) {
  let verdict = "accepted\t";
  try {
    verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(fs.readFileSync(path, "utf8")))));
  } catch (error) {
    verdict = `refused\t${String(error.code || error.message).split("\n")[0]}`;
  }
  console.log(`${path}\t${verdict}`);
}
