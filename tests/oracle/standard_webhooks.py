"""Signs as the specification's own package does what GitLab sends for a hook with a signing token: one line of JSON each way."""

import json
import sys
from datetime import datetime, timezone

from standardwebhooks import Webhook

for line in sys.stdin:
    answers = []
    for case in json.loads(line):
        at = datetime.fromtimestamp(case["time"], tz=timezone.utc)
        answers.append(Webhook(case["token"]).sign(case["id"], at, case["body"]))
    print(json.dumps(answers), flush=True)
