-- The ids of meters as their owners write them.
-- Index: the primary key of meters.
select external_id
from meters
where id = any($1::integer[])
