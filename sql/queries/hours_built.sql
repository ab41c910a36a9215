-- Records that the hours from $1 to $2 are rolled up.
-- Index: none needed, one row.
update hours_progress
set
    built_from = $1,
    built_to = $2
