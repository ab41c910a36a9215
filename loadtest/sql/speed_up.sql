-- Takes back what slow_down.sql did, without a lock on the tables: batches are under way.
create or replace function campaign_slow_down() returns trigger language plpgsql as $$
begin
    return new;
end $$;
