"""Renders templates with stock Jinja2, as the oracle of isoform's renderer.

Reads JSON lists of {"template": text, "data": namespaces} from standard input, one a line, and answers each with a
line: a JSON list of {"text": …} or {"error": …}. The four filters are written from Proton's guide, apart from isoform's.
"""

import json
import re
import sys

import yaml
from jinja2 import Environment, StrictUndefined

SAFE = re.compile(r"^[a-zA-Z0-9_-]*$")
ARN = re.compile(r"^arn:aws[a-z-]*:[a-z0-9-]+:[^:\s]*:[^:\s]*:\S+$")
POLICY = re.compile(r"^arn:[a-zA-Z-]+:iam::\d{12}:policy/")
BEGIN, BREAK = "\uf8f0", "\uf8f1"


def scalar(value):
    text = str(value)
    try:
        plain = yaml.safe_load(text) == text and yaml.safe_load(f"k: {text}") == {"k": text}
    except yaml.YAMLError:
        plain = False
    try:
        float(text)
        plain = False
    except ValueError:
        pass
    # isoform quotes this too, as a reader could take it for a merge key.
    plain = plain and not text.startswith("<")
    return text if plain else json.dumps(text, ensure_ascii=False)


def block(lines):
    return "".join((BREAK if i else BEGIN) + line for i, line in enumerate(lines))


def pairs(value, raw):
    if not raw and not all(SAFE.match(str(v)) for v in value.values()):
        raise ValueError("illegal characters")
    return [(scalar(k), scalar(v)) for k, v in value.items()]


def ecs(value, raw=True):
    return block([line for k, v in pairs(value, raw) for line in (f"- Name: {k}", f"  Value: {v}")])


def lambda_(value, raw=True):
    return block([f"{k}: {v}" for k, v in pairs(value, raw)])


def policies(value):
    return block([f"- {scalar(v)}" for v in value.values() if POLICY.match(str(v))])


def sanitize(value):
    if SAFE.match(str(value)) or ARN.match(str(value)):
        return value
    raise ValueError("illegal characters")


def indent(text):
    out, column, begin = [], 0, 0
    for c in text:
        if c == BEGIN:
            begin = column
        elif c == BREAK:
            out.append("\n" + " " * begin)
            column = begin
        else:
            out.append(c)
            column = 0 if c == "\n" else column + 1
    return "".join(out)


environment = Environment(undefined=StrictUndefined)
environment.filters.update(
    proton_cfn_ecs_task_definition_formatted_env_vars=ecs,
    proton_cfn_lambda_function_formatted_env_vars=lambda_,
    proton_cfn_iam_policy_arns=policies,
    proton_cfn_sanitize=sanitize,
)
for line in sys.stdin:
    results = []
    for case in json.loads(line):
        try:
            results.append({"text": indent(environment.from_string(case["template"]).render(case["data"]))})
        except Exception as error:  # every failure of the oracle is an expected failure
            results.append({"error": f"{type(error).__name__}: {error}"})
    print(json.dumps(results), flush=True)
