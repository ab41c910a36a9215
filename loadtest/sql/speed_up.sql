-- Takes back what slow_down.sql did.
drop function campaign_slow_down() cascade;
