-- Keeps other changes to a meter's sessions out until the transaction ends.
-- Served by the primary key of meters.
select shared
from meters
where id = $1
for no key update
