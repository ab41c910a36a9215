-- Begins the next pass over the dirty hours.
-- Index: none needed, one row.
update hours_pass
set pass = pass + 1
returning pass
