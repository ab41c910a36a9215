-- Readings up to $1 leave a mark from now on. The first time, summing up begins there, in both
-- directions.
-- Index: none needed, one row.
update hours_progress
set
    sealed_to = greatest(sealed_to, $1),
    built_from = coalesce(built_from, $1),
    built_to = coalesce(built_to, $1)
