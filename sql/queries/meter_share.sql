-- Declares whether several vehicles may be at a meter at once.
-- Served by the primary key of meters.
update meters
set shared = $2
where id = $1
