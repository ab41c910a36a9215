-- Records that the hours from $1 to before $2 are rolled up, if those from $3 to before $4 were until now.
-- Index: none needed, one row.
update hours_progress
set
    built_from = $1,
    built_to = $2
where built_from = $3 and built_to = $4
