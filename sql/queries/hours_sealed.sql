-- The watermark: a reading before it makes its hour dirty.
-- Index: none needed, one row.
select sealed_to
from hours_progress
