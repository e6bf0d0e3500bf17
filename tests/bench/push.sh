#!/usr/bin/env bash
# Measures from `git push` to settled on the embedded engine: the daemon's own time, by its log. Bounded: 15 pushes.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${ISOFORM:-target/release/isoform}
[ -x "$program" ] || cargo build --quiet --release
program=$(readlink -f "$program")
folder=$(mktemp -d)
trap 'kill -INT "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; rm -rf "$folder"' EXIT
"$program" demo --once --pace 0.05 "$folder/demo" >/dev/null
"$program" --config "$folder/demo/config.yaml" run --log error &
daemon=$!
cd "$folder/demo/work"
for i in $(seq 100); do [ -S ../state/isoform.sock ] && break; sleep 0.1; done
for i in $(seq 1 15); do
  sed -i "s/desired_count: [0-9]*/desired_count: $((i % 90 + 5))/" services/orders.yaml
  git commit -qam "push $i"
  git push -q 2>/dev/null
  "$program" wait svc/orders/beta --timeout 20s >/dev/null
done
"$program" audit export | python3 -c '
import json, statistics, sys
accepted, begun, spans = {}, {}, []
for line in sys.stdin:
    entry = json.loads(line).get("entry")
    if not entry: continue
    body = entry["body"]
    if body["type"] == "Accepted":
        accepted[body["body"]["snapshot"]] = entry["at"]
    if body["type"] == "Target":
        event = body["body"]
        if event["event"] == "Begun": begun[entry["stream"]] = event["data"]["snapshot"]
        if event["event"] == "Settled":
            snapshot = begun.get(entry["stream"])
            if snapshot in accepted and snapshot > 1: spans.append((snapshot, entry["at"] - accepted[snapshot]))
first = {}
for snapshot, ms in spans: first.setdefault(snapshot, ms)
values = sorted(first.values())
print(f"push to settled, first target of each push: median {statistics.median(values):.0f} ms, worst {values[-1]} ms, {len(values)} pushes")
'
