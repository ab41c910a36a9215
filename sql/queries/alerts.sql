-- A page of alerts, newest first, after an id; null filters nothing.
-- Index: the primary key of alerts, backward; alerts_open if only open ones are asked for.
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
where
    a.id < $1
    and ($2::text is null or a.kind = $2)
    and ($3::boolean is null or $3 = (a.closed_at is null))
    and ($5::text is null or a.stream = $5)
    and ($6::text is null or coalesce(v.external_id, m.external_id) = $6)
order by a.id desc
limit $4
