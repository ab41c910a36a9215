"""What the request generator cannot derive from the description (see run.sh)."""

import json
from datetime import datetime, timedelta, timezone

import schemathesis
from hypothesis import strategies as st

# Readings are accepted from 2000 to ten minutes ahead of the clock, which JSON Schema cannot express.
_zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_times = st.datetimes(datetime(2000, 1, 2), datetime(2024, 12, 31), timezones=_zones)
schemathesis.openapi.format("date-time", _times.map(datetime.isoformat))


@schemathesis.serializer("application/x-ndjson")
def ndjson(context, value):
    """Returns a text unchanged (a broken body is one too), and otherwise a line per item."""
    if isinstance(value, (str, bytes)):
        return value
    lines = value if isinstance(value, list) else [value]
    return "\n".join(json.dumps(line) for line in lines)
