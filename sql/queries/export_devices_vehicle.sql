-- Vehicles after an id, for a walk through all of them.
-- Index: the primary key of vehicles.
select
    id,
    external_id
from vehicles
where id > $1
order by id
limit $2
