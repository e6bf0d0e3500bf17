"""Resolves CloudFormation functions with cfn-lint, as the oracle of isoform's evaluator.

Reads JSON lists of {"template": …, "value": …} from standard input, one a line, and answers each with a line: a JSON list of
{"value": …}, or {"none": …} where cfn-lint knows no value, or more than one.
"""

import json
import sys

from cfnlint.context import create_context_for_template
from cfnlint.helpers import FUNCTIONS
from cfnlint.jsonschema import CfnTemplateValidator
from cfnlint.template import Template


def resolve(case):
    template = Template("t.json", case["template"], ["us-east-1"])
    context = create_context_for_template(template).evolve(functions=list(FUNCTIONS))
    validator = CfnTemplateValidator({}).evolve(context=context, cfn=template)
    found = list(validator.resolve_value(case["value"]))
    if len(found) == 1 and found[0][2] is None:
        return {"value": found[0][0]}
    return {"none": len(found)}


for line in sys.stdin:
    results = []
    for case in json.loads(line):
        try:
            results.append(resolve(case))
        except Exception as error:  # what it cannot resolve it does not judge
            results.append({"none": f"{type(error).__name__}: {error}"})
    print(json.dumps(results), flush=True)
