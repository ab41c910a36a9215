-- A page of alerts: those of some kinds ($7) first, and the newest first within each group. It begins after the alert
-- with the id $1; $8 says whether its kind is among them. Null filters nothing.
-- Index: alerts_open if only open ones are asked for, which is sorted whole; otherwise reads alerts whole.
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
    (a.kind = any($7::text[]), a.id) < ($8::boolean, $1)
    and ($2::text is null or a.kind = $2)
    and ($3::boolean is null or $3 = (a.closed_at is null))
    and ($5::text is null or a.stream = $5)
    and ($6::text is null or coalesce(v.external_id, m.external_id) = $6)
order by a.kind = any($7::text[]) desc, a.id desc
limit $4
