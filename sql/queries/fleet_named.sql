-- The vehicles that name a meter, or a session there, in ($1, $2], with their first and last such
-- reading. Computed once for a whole fleet, since most fleets name no place at all.
-- Index: vehicle_telemetry_history_named_meter and vehicle_telemetry_history_named_session, both
-- partial: read whole in the partitions between $1 and $2, and empty if nothing is named.
select
    h.named_meter_id as meter_id,
    h.vehicle_id,
    min(h.ts) as first_at,
    max(h.ts) as last_at
from vehicle_telemetry_history as h
where h.named_meter_id is not null and h.ts > $1 and h.ts <= $2
group by h.named_meter_id, h.vehicle_id
union all
select
    s.meter_id,
    n.vehicle_id,
    n.first_at,
    n.last_at
from (
    select
        h.named_session_id,
        h.vehicle_id,
        min(h.ts) as first_at,
        max(h.ts) as last_at
    from vehicle_telemetry_history as h
    where h.named_session_id is not null and h.ts > $1 and h.ts <= $2
    group by h.named_session_id, h.vehicle_id
) as n
inner join charging_sessions as s on n.named_session_id = s.session_id
