-- The watermark: a reading up to it, itself included, makes its hour dirty.
-- Index: none needed, one row.
select sealed_to
from hours_progress
