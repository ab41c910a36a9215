-- Takes the seal back to $1: the hours from there on are to be summed up anew.
-- Index: none needed, one row.
update hours_progress
set
    sealed_to = $1,
    built_from = least(built_from, $1),
    built_to = least(built_to, $1)
