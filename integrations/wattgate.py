"""A client for Wattgate with nothing but Python's standard library: retries, batches, a session.

    WATTGATE_URL=http://127.0.0.1:3000 WATTGATE_KEY=… python3 integrations/wattgate.py

sends an hour of readings and prints the session's energy. `Wattgate` is meant to be copied.
"""

import http.client
import json
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

BATCH = 500
WAIT_SECONDS_MIN = 0.5
WAIT_SECONDS_MAX = 60


def is_temporary(status):
    """Whether the same request may get another answer later. Proxies have 5xx of their own (520 to 529)."""
    return status >= 500 or status in (408, 425, 429)


def retry_after(value):
    """The seconds to wait by a Retry-After header (a number or a date). None means that it names no future time."""
    try:
        if value.strip().isdecimal():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds()
    except (AttributeError, TypeError, ValueError):
        return None
    # 0 would mean a loop without a pause.
    return seconds if seconds > 0 else None


class Wattgate:
    """Sends readings until they are accepted, or until another try makes no sense."""

    def __init__(self, url, key=None, give_up_after_seconds=300):
        self.url = url
        self.key = key
        self.give_up_after_seconds = give_up_after_seconds

    def request(self, path, body=None, content_type="application/json"):
        """Sends a request, and repeats it after a temporary error or an incomplete answer. That is always safe."""
        headers = {"Content-Type": content_type} if body is not None else {}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        began = time.monotonic()
        wait = WAIT_SECONDS_MIN
        while True:
            try:
                request = urllib.request.Request(self.url + path, data=body, headers=headers)
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                try:
                    detail = error.read().decode(errors="replace")
                except (OSError, http.client.HTTPException):
                    detail = "(the answer was cut)"
                if not is_temporary(error.code):
                    raise RuntimeError(f"{path}: {error.code} {detail}") from error
                # The gateway knows best when it has room.
                pause = retry_after(error.headers.get("Retry-After")) or wait
                why = f"{error.code}"
            except (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
                # A failure of the connection, the name lookup or TLS, a reset, or a truncated answer.
                pause, why = wait, str(error) or type(error).__name__
            wait = min(2 * wait, WAIT_SECONDS_MAX)
            # Jitter, so that clients that were refused together do not retry together.
            pause *= 1 + random.random() / 4
            if time.monotonic() - began + pause > self.give_up_after_seconds:
                raise RuntimeError(f"{path}: given up, the last answer was {why}")
            print(f"{path}: {why}, again in {pause:.1f} s", file=sys.stderr)
            time.sleep(pause)

    def send(self, stream, readings, ack="durable"):
        """Sends readings of meters or vehicles. Returns the refused ones, each with its error."""
        refused = []
        for start in range(0, len(readings), BATCH):
            batch = readings[start : start + BATCH]
            body = "".join(json.dumps(reading) + "\n" for reading in batch).encode()
            answer = self.request(f"/v1/ingestion/{stream}?ack={ack}", body, "application/x-ndjson")
            # Partly accepted. Wrong readings stay wrong, so they are returned and not sent again. A
            # reading with several faults has an error for each.
            why = {}
            for error in answer["errors"]:
                why.setdefault(error["index"], []).append(error["message"])
            refused += [(batch[index], "; ".join(messages)) for index, messages in why.items()]
        return refused

    def start_session(self, session, vehicle, meter, at):
        body = {"sessionId": session, "vehicleId": vehicle, "meterId": meter, "startedAt": at}
        return self.request("/v1/sessions", json.dumps(body).encode())

    def end_session(self, session, at):
        path = f"/v1/sessions/{urllib.parse.quote(session, safe='')}"
        self.request(f"{path}/end", json.dumps({"endedAt": at}).encode())
        return self.request(path)


def connect():
    """The gateway that the environment variables name."""
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
