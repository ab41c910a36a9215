-- The gateway's writers, as PostgreSQL sees them.
select pid
from pg_stat_activity
where application_name like 'wattgate writer%' and datname = current_database()
order by pid
