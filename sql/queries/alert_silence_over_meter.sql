-- Meters with an open alert of silence that have sent a reading since, or have sent none for 30 days before $1: they
-- count as retired. The 30 days end at the newest reading of all if that is earlier, so that a clock that is ahead
-- retires no device.
-- Index: alerts_open, the primary key of meter_live_status.
select a.device_id
from alerts as a
inner join meter_live_status as s on a.device_id = s.meter_id
where
    a.kind = 'silent' and a.stream = 'meter' and a.closed_at is null
    and (
        s.ts > (a.details ->> 'lastReadingAt')::timestamptz
        or s.ts < least($1::timestamptz, (select max(l.ts) from meter_live_status as l)) - interval '30 days'
    )
