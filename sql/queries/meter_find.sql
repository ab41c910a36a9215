-- The short id of a meter.
-- Served by the unique index on meters.external_id.
select id
from meters
where external_id = $1
