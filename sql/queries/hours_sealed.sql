-- Up to when hours may be summed up: a reading up to then leaves a mark.
-- Index: none needed, one row.
select sealed_to
from hours_progress
