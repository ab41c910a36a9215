-- Moves the watermark to $1: from now on readings up to it make their hour dirty. The first time, the
-- rollup begins there, in both directions.
-- Index: none needed, one row.
update hours_progress
set
    sealed_to = greatest(sealed_to, $1),
    built_from = coalesce(built_from, $1),
    built_to = coalesce(built_to, $1)
