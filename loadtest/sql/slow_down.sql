-- Lets history take about two thousand rows a second of each writer: for campaigns.
create function campaign_slow_down() returns trigger language plpgsql as $$
begin
    perform pg_sleep(0.0005);
    return new;
end $$;
create trigger campaign_slow_down before insert on meter_telemetry_history
for each row execute function campaign_slow_down();
create trigger campaign_slow_down before insert on vehicle_telemetry_history
for each row execute function campaign_slow_down();
