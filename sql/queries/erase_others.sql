-- The gateways with a session: they would continue to use the ids that they hold in memory. A view of the server's
-- memory: no index.
select distinct coalesce(host(client_addr), 'this machine') as place
from pg_stat_activity
where datname = current_database() and application_name like 'wattgate writer%'
