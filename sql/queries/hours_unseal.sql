-- Moves the watermark back to $1: later hours have to be rolled up again.
-- Index: none needed, one row.
update hours_progress
set
    sealed_to = $1,
    built_from = least(built_from, $1),
    built_to = least(built_to, $1)
