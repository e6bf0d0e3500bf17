// Compares pairs of templates as the AWS CDK's own package does: one line of JSON each way.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const file = `${process.env.ISOFORM_TEST_NODE}/node_modules/@aws-cdk/cloudformation-diff/lib/index.js`;
const { default: differ } = await import(pathToFileURL(file));

// It complains of types that it does not know on standard output, where the answers are.
console.warn = console.error;

for await (const line of createInterface({ input: process.stdin })) {
  const answers = JSON.parse(line).map(([before, after]) => {
    const diff = differ.fullDiff(before, after);
    const verdicts = {};
    diff.resources.forEachDifference((id, change) => (verdicts[id] = change.changeImpact));
    return {
      verdicts,
      rights: diff.iamChanges.permissionsBroadened,
      rightsMove: diff.iamChanges.hasChanges,
      rules: diff.securityGroupChanges.rulesAdded,
      rulesMove: diff.securityGroupChanges.hasChanges,
    };
  });
  process.stdout.write(`${JSON.stringify(answers)}\n`);
}
