-- The name of a session that was sent without one: the same for the same vehicle, meter and start, at every gateway and
-- on every database. Lengths keep different ids from running together. Needs no index.
select 'session-' || encode(substring(sha256(convert_to(
    char_length($1::text) || ':' || $1 || char_length($2::text) || ':' || $2 || $3::bigint, 'UTF8'
)) from 1 for 16), 'hex')
