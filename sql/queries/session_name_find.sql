-- The short id of a charging session's name.
-- Served by the unique index on session_names.external_id.
select id
from session_names
where external_id = $1
