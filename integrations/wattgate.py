"""A client of Wattgate in Python's standard library: retries, batches, a session.

    WATTGATE_URL=http://127.0.0.1:3000 WATTGATE_KEY=… python3 integrations/wattgate.py

sends an hour of readings and prints the session's energy. `Wattgate` is meant to be copied.
"""

import json
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timedelta, timezone

BATCH = 500
AGAIN = {408, 429, 500, 502, 503, 504}
WAIT_SECONDS_MAX = 60


class Wattgate:
    """Sends readings until they are taken, or until trying longer makes no sense."""

    def __init__(self, url, key=None, give_up_after_seconds=300):
        self.url = url
        self.key = key
        self.give_up_after_seconds = give_up_after_seconds

    def ask(self, path, body=None, content_type="application/json"):
        """Asks, and asks again where the gateway says 'later' or nobody answers: that is always safe."""
        headers = {"Content-Type": content_type} if body is not None else {}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        began = time.monotonic()
        wait = 0.5
        while True:
            try:
                request = urllib.request.Request(self.url + path, data=body, headers=headers)
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                detail = error.read().decode(errors="replace")
                if error.code not in AGAIN:
                    raise RuntimeError(f"{path}: {error.code} {detail}") from error
                # The gateway knows best when it has room; it says so in whole seconds.
                after = error.headers.get("Retry-After", "")
                pause = float(after) if after.isdigit() else wait
                why = f"{error.code}"
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                pause, why = wait, str(error)
            wait = min(2 * wait, WAIT_SECONDS_MAX)
            # Many that were refused together do not come back together.
            pause *= 1 + random.random() / 4
            if time.monotonic() - began + pause > self.give_up_after_seconds:
                raise RuntimeError(f"{path}: given up, the last answer was {why}")
            print(f"{path}: {why}, again in {pause:.1f} s", file=sys.stderr)
            time.sleep(pause)

    def send(self, stream, readings, ack="durable"):
        """Sends readings of meters or vehicles; returns those that were refused, with why."""
        refused = []
        for start in range(0, len(readings), BATCH):
            batch = readings[start : start + BATCH]
            body = "".join(json.dumps(reading) + "\n" for reading in batch).encode()
            answer = self.ask(f"/v1/ingestion/{stream}?ack={ack}", body, "application/x-ndjson")
            # Taken in part: what is wrong stays wrong, so it is told and not sent again.
            refused += [(batch[error["index"]], error["message"]) for error in answer["errors"]]
        return refused

    def start_session(self, session, vehicle, meter, at):
        body = {"sessionId": session, "vehicleId": vehicle, "meterId": meter, "startedAt": at}
        return self.ask("/v1/sessions", json.dumps(body).encode())

    def end_session(self, session, at):
        path = f"/v1/sessions/{urllib.parse.quote(session, safe='')}"
        self.ask(f"{path}/end", json.dumps({"endedAt": at}).encode())
        return self.ask(path)


def connect():
    """The gateway of the environment."""
    return Wattgate(os.environ.get("WATTGATE_URL", "http://127.0.0.1:3000"), os.environ.get("WATTGATE_KEY"))


def main():
    gateway = connect()
    now = datetime.now(timezone.utc).replace(microsecond=0)

    def at(minutes):
        return (now - timedelta(minutes=minutes)).isoformat()

    session = f"python-{int(now.timestamp())}"
    gateway.start_session(session, "python-car", "python-meter", at(60))
    meters = [
        {"meterId": "python-meter", "kwhConsumedAc": 0.12, "voltage": 231, "timestamp": at(m)}
        for m in range(59, -1, -1)
    ]
    vehicles = [
        {"vehicleId": "python-car", "soc": 81, "kwhDeliveredDc": 0.108, "batteryTemp": 30.5, "timestamp": at(m)}
        for m in range(59, -1, -1)
    ]
    refused = gateway.send("meter", meters) + gateway.send("vehicle", vehicles, ack="committed")
    for reading, why in refused:
        print(f"refused: {why}: {reading}", file=sys.stderr)
    print(json.dumps(gateway.end_session(session, at(0)), separators=(",", ":")))


if __name__ == "__main__":
    main()
