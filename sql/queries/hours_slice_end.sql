-- Forgets the hours that were being rolled up, new ones or older ones ($1).
-- Index: the primary key of hours_slices, one row.
delete from hours_slices
where is_new = $1
