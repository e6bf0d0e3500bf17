#!/usr/bin/env python3
"""Reduce the CloudFormation resource-provider schemas to one line a type.

    python3.11 generate.py <site-packages>/cfnlint [-o resources.tsv]

The argument is the installed directory of the PyPI package `cfn-lint`
(`python -c "import cfnlint; print(cfnlint.__path__[0])"`).  Nothing of the
package is imported or run: its JSON is parsed, and the few tables which it
keeps as Python are read with `ast`.  Standard library only.  The same package
gives the same bytes: no clock, no environment, no set order.

What is read
  data/schemas/providers/<region>.py   type name -> hash of its schema file
  data/schemas/resources/<hash>.json   the schemas (cfn-lint has already taken
                                       out descriptions and handlers and put in
                                       its own corrections)
  schema/_getatts.py                   cfn-lint's two hand-kept lists of
                                       attributes which are not read-only
  ../cfn_lint-<v>.dist-info/METADATA   version and licence

What is written: UTF-8, LF, lines beginning with '#' first, then one record a
resource type, sorted by the bytes of the type name, four TAB-separated columns:

  1 type      AWS::S3::Bucket
  2 meta      '-' or space-separated tokens, in this order:
                replace=delete_then_create | replace=create_then_delete
                             replacementStrategy, only if the schema states it
                             (CloudFormation's default is create_then_delete)
                tags=NAME:F  the property which holds tags; F has any of
                             c (tagOnCreate) u (tagUpdatable)
                             s (CloudFormation adds its system tags).
                             tags=none: the schema says "taggable": false.
                             No token: the schema does not say.
                life=STATUS  lifecycle.status (sunset, shutdown, ...)
                region=R     not offered in us-east-1; facts are those of R
                open         unknown property names are allowed
                getatt=any   every attribute name is allowed
                getatt=PREFIX.*   any name under PREFIX is allowed
  3 id        '-' or the primary identifier's paths, comma-separated, in the
              schema's order (the order of the parts of a compound identifier)
  4 entries   '-' or space-separated PATH=TYPE FLAGS [~ FLAGS], without the
              blanks, sorted by PATH.  Every top-level property has an entry;
              a deeper path has one only if it has a flag.

  PATH   the schema's JSON pointer without '/properties' and the leading '/';
         '*' stands for any array item (or any key of a map).  Where a schema
         goes through an array without saying so, '*' has been put in.
  TYPE   s string, i integer, n number, b boolean, a array,
         o object with declared members, f free-form map,
         j object or string (a JSON document), m any other mixture or unknown,
         ? the path does not lead anywhere in the schema (kept as it is)
  FLAGS  ! required (top level only)     C create-only (a change replaces)
         K conditional create-only       R read-only
         W write-only                    D deprecated
         G Fn::GetAtt can read it: read-only, and no '*' in its path
         H Fn::GetAtt can read it according to cfn-lint's own lists, although
           it is not read-only
         The attribute name is PATH with '.' for '/'.  If an entry with G or H
         has TYPE o, f or m, names beneath it are readable too.
  ~      flags which hold not in the region of the record but in at least one
         other region: C, K, R, W, and P for "the property exists only there".
         A reader which does not care may stop at '~'.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

PRIMARY = "us_east_1"
LISTS = (
    ("createOnlyProperties", "C"),
    ("conditionalCreateOnlyProperties", "K"),
    ("readOnlyProperties", "R"),
    ("writeOnlyProperties", "W"),
    ("deprecatedProperties", "D"),
)
FLAG_ORDER = "!CKRWDGHP"
LETTER = {"string": "s", "integer": "i", "number": "n", "boolean": "b",
          "array": "a"}
PATH_OK = re.compile(r"[A-Za-z0-9_.*$:@-]+(/[A-Za-z0-9_.*$:@-]+)*\Z")
MAX_DEPTH = 32  # schemas may refer to themselves


class Schema:
    """One schema file, with just enough resolving to follow a path."""

    def __init__(self, doc: dict) -> None:
        self.doc = doc
        self.props: dict = doc.get("properties") or {}

    def deref(self, node: object, depth: int = 0) -> list[dict]:
        """The alternatives a node stands for: $ref and oneOf/anyOf/allOf."""
        if not isinstance(node, dict) or depth > MAX_DEPTH:
            return []
        out = [node]
        ref = node.get("$ref")
        if isinstance(ref, str) and ref.startswith("#/"):
            target: object = self.doc
            for part in ref[2:].split("/"):
                part = part.replace("~1", "/").replace("~0", "~")
                target = target.get(part) if isinstance(target, dict) else None
            out += self.deref(target, depth + 1)
        for key in ("oneOf", "anyOf", "allOf"):
            for sub in node.get(key) or []:
                out += self.deref(sub, depth + 1)
        return out

    def letter(self, node: object) -> str:
        types: set[str] = set()
        declared = json_doc = False
        for alt in self.deref(node):
            kind = alt.get("type")
            kinds = kind if isinstance(kind, list) else [kind] if kind else []
            if not kinds:
                if "properties" in alt or "patternProperties" in alt:
                    kinds = ["object"]
                elif "items" in alt:
                    kinds = ["array"]
                elif alt.get("format") == "json":
                    kinds = ["object", "string"]
                elif isinstance(alt.get("const"), str) or any(
                    isinstance(v, str) for v in alt.get("enum") or []
                ):
                    kinds = ["string"]
            types.update(kinds)
            declared |= bool(alt.get("properties"))
            json_doc |= alt.get("format") == "json"
        if json_doc and types == {"object"}:
            types.add("string")
        if types == {"object"}:
            return "o" if declared else "f"
        if types == {"object", "string"}:
            return "j"
        if types == {"integer", "number"}:
            return "n"
        return LETTER.get(next(iter(types)), "m") if len(types) == 1 else "m"

    def walk(self, pointer: str) -> tuple[str, str]:
        """A pointer -> (PATH as written, TYPE letter)."""
        parts = pointer.split("/")
        if parts[:2] != ["", "properties"] or len(parts) < 3:
            raise SystemExit(f"{self.doc.get('typeName')}: odd pointer {pointer}")
        parts = parts[2:]
        nodes: list[dict] = [{"properties": self.props}]
        out: list[str] = []
        i = 0
        while i < len(parts):
            part = parts[i]
            found: list[dict] = []
            if part in ("*", "items"):
                for n in nodes:
                    found += self.items(n)
                    if part == "*":
                        found += self.values(n)
                if found:
                    part = "*"
            if not found:
                # 'properties' as a bare keyword inside a pointer
                if part == "properties" and i + 1 < len(parts) and not any(
                    "properties" in (n.get("properties") or {}) for n in nodes
                ):
                    i += 1
                    continue
                found = [n["properties"][part] for n in nodes
                         if part in (n.get("properties") or {})]
            if not found:
                deeper = [x for n in nodes for x in self.items(n)]
                deeper = [d for x in deeper for d in self.deref(x)]
                if deeper:  # the schema left the array level unsaid
                    nodes = deeper
                    out.append("*")
                    continue
                found = [x for n in nodes for x in self.values(n)]
            if not found:
                return "/".join(parts), "?"
            out.append(part)
            nodes = [d for f in found for d in self.deref(f)]
            i += 1
        return "/".join(out), self.letter({"anyOf": found})

    @staticmethod
    def items(node: dict) -> list:
        it = node.get("items")
        return it if isinstance(it, list) else [it] if isinstance(it, dict) else []

    @staticmethod
    def values(node: dict) -> list:
        out = list((node.get("patternProperties") or {}).values())
        extra = node.get("additionalProperties")
        return out + ([extra] if isinstance(extra, dict) else [])

    def leaves(self, node: object, path: str, depth: int = 0) -> list[str]:
        """What cfn-lint takes as readable below a property (see GetAtts)."""
        if depth > 8:
            return []
        alts = self.deref(node)
        kinds = {k for a in alts for k in
                 (a["type"] if isinstance(a.get("type"), list)
                  else [a["type"]] if a.get("type") else [])}
        if "object" in kinds:
            return [leaf for a in alts
                    for name in sorted(a.get("properties") or {})
                    for leaf in self.leaves(a["properties"][name],
                                            f"{path}/{name}", depth + 1)]
        if "array" in kinds:
            for a in alts:
                for item in self.items(a):
                    if any(d.get("type") in ("object", "array")
                           for d in self.deref(item)):
                        return []
        return [path]


def py_literal(path: Path, name: str) -> object:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Assign):
            targets = node.targets
        else:
            continue
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return ast.literal_eval(node.value)
    raise SystemExit(f"{path}: no assignment to {name}")


def is_copy(region: str) -> bool:
    """Regions whose list cfn-lint copies from us-east-1: no evidence."""
    return "iso" in region or region.startswith("eusc")


def meta(doc: dict, region: str) -> str:
    out: list[str] = []
    if doc.get("replacementStrategy"):
        out.append("replace=" + doc["replacementStrategy"])
    tagging = doc.get("tagging")
    if isinstance(tagging, dict):
        if tagging.get("taggable") is False:
            out.append("tags=none")
        else:
            prop = tagging.get("tagProperty") or "/properties/Tags"
            prop = prop.removeprefix("/properties/")
            flags = "".join(letter for key, letter in
                            (("tagOnCreate", "c"), ("tagUpdatable", "u"),
                             ("cloudFormationSystemTags", "s"))
                            if tagging.get(key, True))
            out.append(f"tags={prop}:{flags}")
    elif doc.get("taggable") is False:
        out.append("tags=none")
    status = (doc.get("lifecycle") or {}).get("status")
    if status:
        out.append(f"life={status}")
    if region != PRIMARY:
        out.append("region=" + region.replace("_", "-"))
    name = doc["typeName"]
    if doc.get("additionalProperties") is not False:
        out.append("open")
    if name in ("Module", "AWS::CloudFormation::CustomResource"):
        out.append("getatt=any")
    elif name in ("AWS::CloudFormation::Stack",
                  "AWS::ServiceCatalog::CloudFormationProvisionedProduct"):
        out.append("getatt=Outputs.*")
    return " ".join(out) or "-"


def facts(s: Schema, h_all: set[str], h_some: dict[str, list[str]]
          ) -> dict[str, tuple[str, set[str]]]:
    name = s.doc["typeName"]
    out: dict[str, tuple[str, set[str]]] = {}

    def add(pointer: str, flag: str) -> None:
        path, letter = s.walk(pointer)
        out.setdefault(path, (letter, set()))[1].add(flag)

    for prop in s.props:
        out[prop] = (s.letter(s.props[prop]), set())
    for prop in s.doc.get("required") or []:
        if prop in out:
            out[prop][1].add("!")
    for key, flag in LISTS:
        for pointer in s.doc.get(key) or []:
            add(pointer, flag)
    for path, (_, flags) in out.items():
        if "R" in flags and "*" not in path.split("/"):
            flags.add("G")
    wanted = list(h_some.get(name, []))
    if name in h_all:
        wanted += [leaf for p in sorted(s.props) for leaf in s.leaves(s.props[p], p)]
    for path in wanted:
        path, letter = s.walk("/properties/" + path)
        flags = out.setdefault(path, (letter, set()))[1]
        if "G" not in flags and "*" not in path.split("/") and letter != "?":
            flags.add("H")
    return out


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("package", type=Path, help="installed cfnlint directory")
    ap.add_argument("-o", "--output", type=Path, default=Path("resources.tsv"))
    args = ap.parse_args()
    root: Path = args.package / "data" / "schemas"

    infos = sorted(args.package.parent.glob("cfn_lint-*.dist-info"))
    if len(infos) != 1:
        raise SystemExit(f"expected one cfn_lint-*.dist-info, found {len(infos)}")
    head = (infos[0] / "METADATA").read_text(encoding="utf-8").split("\n\n")[0]
    field = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)

    regions: dict[str, dict[str, str]] = {
        f.stem: py_literal(f, "types")  # type: ignore[misc]
        for f in sorted((root / "providers").glob("*.py")) if f.stem != "__init__"
    }
    getatts = args.package / "schema" / "_getatts.py"
    h_all = set(py_literal(getatts, "_all_property_types"))  # type: ignore[call-overload]
    h_some: dict[str, list[str]] = py_literal(getatts, "_exceptions")  # type: ignore[assignment]

    loaded: dict[str, Schema] = {}

    def load(digest: str) -> Schema:
        if digest not in loaded:
            text = (root / "resources" / f"{digest}.json").read_text(encoding="utf-8")
            loaded[digest] = Schema(json.loads(text))
        return loaded[digest]

    offered: dict[str, dict[str, str]] = {}  # type -> region -> hash
    for region, types in regions.items():
        for name, digest in types.items():
            if region == PRIMARY or not is_copy(region):
                offered.setdefault(name, {})[region] = digest

    lines: list[str] = []
    used: list[str] = []
    stats: Counter[str] = Counter()
    lost: list[str] = []
    for name in sorted(offered, key=lambda n: n.encode()):
        where = offered[name]
        if PRIMARY in where:
            region = PRIMARY
        else:  # the variant most regions have; then the first region by name
            votes = Counter(where.values())
            region = min(where, key=lambda r: (-votes[where[r]], r))
        schema = load(where[region])
        used.append(f"{name} {where[region]}")
        mine = facts(schema, h_all, h_some)
        elsewhere: dict[str, set[str]] = {}
        for digest in sorted(set(where.values()) - {where[region]}):
            for path, (letter, flags) in facts(load(digest), h_all, h_some).items():
                have = mine.get(path)
                extra = (flags & set("CKRW")) - (have[1] if have else set())
                if have is None:
                    if letter == "?":
                        continue
                    if "/" not in path:
                        extra.add("P")
                    if not extra:
                        continue
                    mine[path] = (letter, set())
                if extra:
                    elsewhere.setdefault(path, set()).update(extra)

        entries: list[str] = []
        for path in sorted(mine, key=lambda p: p.encode()):
            letter, flags = mine[path]
            if not PATH_OK.match(path):
                raise SystemExit(f"{name}: a path the format cannot hold: {path!r}")
            text = path + "=" + letter + "".join(f for f in FLAG_ORDER if f in flags)
            if path in elsewhere:
                text += "~" + "".join(f for f in FLAG_ORDER if f in elsewhere[path])
                stats["entries with ~"] += 1
            if letter == "?":
                lost.append(f"{name} {path} {''.join(sorted(flags))}")
            entries.append(text)
            stats["top-level entries" if "/" not in path else "nested entries"] += 1
            for f in flags:
                stats["flag " + f] += 1
            if "/" not in path:
                stats["type " + letter] += 1
        ids = [schema.walk(p)[0] for p in schema.doc.get("primaryIdentifier") or []]
        lines.append("\t".join((name, meta(schema.doc, region),
                                ",".join(ids) or "-", " ".join(entries) or "-")))
        for token in lines[-1].split("\t")[1].split():
            stats["meta " + token.split(":")[0]] += token[:5] != "tags=" or token == "tags=none"

    digest = hashlib.sha256("\n".join(used).encode()).hexdigest()
    header = [
        "CloudFormation resource property facts. GENERATED by generate.py; do not edit.",
        f"source: PyPI {field['Name']} {field['Version']}, data/schemas/{{providers,resources}} and schema/_getatts.py",
        f"source-sha256: {digest} (over 'type hash' lines of the schemas used)",
        f"licence: the package is {field.get('License-Expression', 'of unstated licence')}, Copyright Amazon.com, Inc. or its affiliates; the AWS schemas in it carry no notice of their own: see NOTICE.md",
        f"records: {len(lines)}",
        "columns (TAB): type, meta, primary identifier, entries; '-' is empty",
        "meta: replace=S tags=NAME:cus|none life=S region=R open getatt=any|PREFIX.*",
        "entry: PATH=TYPE FLAGS[~FLAGS in other regions], blanks only between entries",
        "TYPE: s string i integer n number b boolean a array o object f map j object|string m mixed ? unresolved",
        "FLAGS: ! required C create-only K conditional-create-only R read-only W write-only D deprecated G GetAtt H GetAtt (cfn-lint list) P property only there",
    ]
    body = "".join(f"# {h}\n" for h in header) + "".join(f"{x}\n" for x in lines)
    args.output.write_bytes(body.encode("utf-8"))
    for key in sorted(stats):
        print(f"{stats[key]:7} {key}", file=sys.stderr)
    print(f"{len(lines):7} records, {len(body.encode())} bytes", file=sys.stderr)
    for item in lost:
        print("unresolved:", item, file=sys.stderr)


if __name__ == "__main__":
    main()
