"""Reads YAML with PyYAML, as the oracle of isoform's reader.

Reads JSON lists of texts from standard input, one a line, and answers each with a line: a JSON list of {"value": …} or
{"error": …}. Values are spelled out, so that no type is lost on the way: {"i": "8"}, {"f": bits}, {"s": "text"}. Dates stay
the text that was written and keys their text, as isoform has neither dates nor keys of other types.
"""

import json
import math
import struct
import sys

import yaml


def spell(loader, node):
    if isinstance(node, yaml.SequenceNode):
        return [spell(loader, item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        return {"m": {key.value: spell(loader, value) for key, value in node.value}}
    if node.tag == "tag:yaml.org,2002:timestamp":
        return {"s": node.value}
    value = loader.construct_object(node)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"i" if -(2**63) <= value < 2**64 else "s": str(value)}
    if isinstance(value, float):
        if math.isfinite(value):
            return {"f": str(struct.unpack("<Q", struct.pack("<d", value))[0])}
        return {"s": "NaN" if math.isnan(value) else str(value)}
    return {"s": value}


def read(text):
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    return None if node is None else spell(loader, node)


for line in sys.stdin:
    results = []
    for text in json.loads(line):
        try:
            results.append({"value": read(text)})
        except Exception as error:  # every failure of the oracle is an expected failure
            results.append({"error": f"{type(error).__name__}: {error}"})
    print(json.dumps(results), flush=True)
