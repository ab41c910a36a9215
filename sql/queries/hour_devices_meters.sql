-- The next $2 meters after $1.
-- Index: the primary key of meters.
select v.id
from meters as v
where v.id > $1
order by v.id
limit $2
