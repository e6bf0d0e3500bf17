"""Checks licences and sources of all dependencies against deny.toml, where cargo-deny is not installed."""

import json
import re
import subprocess
import sys
import tomllib

with open("deny.toml", "rb") as file:
    config = tomllib.load(file)
allowed = set(config["licenses"]["allow"])
exceptions = {e["crate"]: set(e["allow"]) for e in config["licenses"].get("exceptions", [])}
banned = {b["crate"] for b in config["bans"].get("deny", [])}
metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version=1", "--all-features", "--filter-platform", "x86_64-unknown-linux-gnu"]))
used = {node["id"] for node in metadata["resolve"]["nodes"]}
faults = []


def holds(expression, extra):
    """Evaluates an SPDX expression: OR of ANDs, with brackets."""
    tokens = re.findall(r"\(|\)|\bAND\b|\bOR\b|\bWITH\b|/|[A-Za-z0-9.+-]+", expression)
    out, i = [], 0
    while i < len(tokens):
        token = tokens[i]
        if i + 2 < len(tokens) and tokens[i + 1] == "WITH":
            token = f"{token} WITH {tokens[i + 2]}"
            i += 2
        out.append({"AND": "and", "OR": "or", "/": "or", "(": "(", ")": ")"}.get(token) or str(token in allowed | extra))
        i += 1
    return eval(" ".join(out), {"__builtins__": {}})  # only True, False, and, or and brackets are left


for package in metadata["packages"]:
    if package["id"] not in used or package["source"] is None:
        continue
    name = f"{package['name']} {package['version']}"
    if not package["source"].startswith("registry+"):
        faults.append(f"{name}: the source {package['source']} is not a registry")
    if package["name"] in banned:
        faults.append(f"{name}: banned by deny.toml")
    if not package["license"] or not holds(package["license"], exceptions.get(package["name"], set())):
        faults.append(f"{name}: the licence {package['license']} is not allowed")
print("\n".join(faults) or f"{len(used)} packages are allowed")
sys.exit(1 if faults else 0)
