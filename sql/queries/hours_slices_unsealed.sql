-- Forgets hours that were being rolled up, if some of them lie from $1 on.
-- Index: none needed, two rows.
delete from hours_slices
where hours_to > $1
