-- Meters after an id, for a walk through all of them.
-- Index: the primary key of meters.
select
    id,
    external_id
from meters
where id > $1
order by id
limit $2
