-- The stored reading of a meter at one time, as it was sent.
-- Indexes: the unique external_id of meters, the primary key of the one partition that holds $2.
select
    jsonb_strip_nulls(jsonb_build_object(
        'kwhConsumedAc', coalesce(h.kwh_register, h.kwh_consumed_ac),
        'energyKind', case when h.kwh_register is null then 'interval' else 'register' end,
        'voltage', h.voltage
    ))::text
from meters as m
inner join meter_telemetry_history as h on m.id = h.meter_id
where m.external_id = $1 and h.ts = $2
