-- Vehicles with an open alert of silence that have sent a reading since, or whose newest session has ended by $1
-- without a reading more than a quarter of an hour later: they have left; or that have sent none for 30 days before $1:
-- they count as retired. The 30 days end at the newest reading of all if that is earlier, so that a clock that is ahead
-- retires no device.
-- Index: alerts_open, the primary key of vehicle_live_status, charging_sessions_vehicle.
select a.device_id
from alerts as a
inner join vehicle_live_status as s on a.device_id = s.vehicle_id
left join lateral (
    select c.ended_at
    from charging_sessions as c
    where c.vehicle_id = a.device_id and c.started_at <= $1::timestamptz
    order by c.started_at desc
    limit 1
) as n on true
where
    a.kind = 'silent' and a.stream = 'vehicle' and a.closed_at is null
    and (
        s.ts > (a.details ->> 'lastReadingAt')::timestamptz
        or s.ts < least($1::timestamptz, (select max(l.ts) from vehicle_live_status as l)) - interval '30 days'
        or (n.ended_at <= $1::timestamptz and s.ts <= n.ended_at + interval '15 minutes')
    )
