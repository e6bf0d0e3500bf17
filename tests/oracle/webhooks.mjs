// Signs and verifies bodies as GitHub's own package does: one line of JSON each way.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const methods = `${process.env.ISOFORM_TEST_NODE}/node_modules/@octokit/webhooks-methods/dist-node/index.js`;
const { sign, verify } = await import(pathToFileURL(methods));

for await (const line of createInterface({ input: process.stdin })) {
  const cases = JSON.parse(line);
  const answers = cases.map(async ({ secret, body, signature }) =>
    signature === undefined ? sign(secret, body) : verify(secret, body, signature),
  );
  console.log(JSON.stringify(await Promise.all(answers)));
}
