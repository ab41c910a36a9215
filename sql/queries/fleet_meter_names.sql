-- The ids of meters as their owners write them, by their ids.
-- Index: the primary key of meters.
select
    id,
    external_id
from meters
where id = any($1::integer[])
