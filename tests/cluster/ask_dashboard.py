"""`python ask_dashboard.py ADDRESS KIND`: what the cluster's state API knows of a kind, as JSON."""

import json
import os
import sys
import urllib.request
from pathlib import Path

address, kind = sys.argv[1:]
token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser().read_text().strip()
request = urllib.request.Request(
    f"{address}/api/v0/{kind}?detail=1&limit=1000", headers={"Authorization": f"Bearer {token}"}
)
with urllib.request.urlopen(request, timeout=30) as answer:
    print(json.dumps(json.load(answer)["data"]["result"]["result"]))
