-- Meters after an id.
-- Index: the primary key of meters.
select id
from meters
where id > $1
order by id
limit $2
