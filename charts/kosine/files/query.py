"""`helm test`: asks every index of the release for its best rows; exit code 1 where one does not answer.

query.py http://release.namespace.svc
"""

import json
import sys
import urllib.request
from typing import Any


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON that `url` answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test(service: str) -> list[str]:
    """What is wrong; prints what is not."""
    problems = []
    for index in ask(f"{service}/indexes")["indexes"]:
        name, state = index["name"], index["state"]
        if state != "available":
            problems.append(f"{name}: expected state available, got {state}; GET /indexes/{name} says why")
            continue
        query = {"embedding": [1.0] * index["dim"], "k": 1}
        found = ask(f"{service}/indexes/{name}/cos", query)
        print(f"{name}: {found}")
        if len(found["result"]) != 1:
            problems.append(f"{name}: expected one row, got {found['result']}")
    return problems


if __name__ == "__main__":
    sys.exit("\n".join(test(sys.argv[1])) or 0)
