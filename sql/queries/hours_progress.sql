-- How far hours are rolled up.
-- Index: none needed, one row.
select
    sealed_to,
    built_from,
    built_to
from hours_progress
