-- Finds which of some alerts have closed.
-- Index: the primary keys of alerts, vehicles and meters.
select
    a.id,
    a.kind,
    a.stream,
    coalesce(v.external_id, m.external_id) as device,
    a.opened_at,
    a.updated_at,
    a.closed_at,
    a.value,
    a.bound,
    a.details::text as details
from alerts as a
left join vehicles as v on a.stream = 'vehicle' and a.device_id = v.id
left join meters as m on a.stream = 'meter' and a.device_id = m.id
where a.id = any($1) and a.closed_at is not null
order by a.id
