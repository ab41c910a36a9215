-- The vehicles with the ids of some meters.
-- Index: the primary key of meters, external_id of vehicles.
select
    m.id,
    v.id as vehicle_id
from meters as m
inner join vehicles as v on m.external_id = v.external_id
where m.id = any($1::integer[])
