-- The next $2 vehicles after $1.
-- Index: the primary key of vehicles.
select v.id
from vehicles as v
where v.id > $1
order by v.id
limit $2
