-- Meters with an open alert of silence that have sent a reading since, or have sent none for 30 days
-- before $1: they are taken for retired.
-- Index: alerts_open, the primary key of meter_live_status.
select a.device_id
from alerts as a
inner join meter_live_status as s on a.device_id = s.meter_id
where
    a.kind = 'silent' and a.stream = 'meter' and a.closed_at is null
    and (
        s.ts > (a.details ->> 'lastReadingAt')::timestamptz
        or s.ts < $1::timestamptz - interval '30 days'
    )
