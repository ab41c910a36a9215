-- The ids of vehicles ($1) and meters ($2) as their owners write them.
-- Index: the primary keys of vehicles and meters.
select
    'vehicle' as stream,
    v.id,
    v.external_id
from vehicles as v
where v.id = any($1::integer[])
union all
select
    'meter' as stream,
    m.id,
    m.external_id
from meters as m
where m.id = any($2::integer[])
