//! The fleet's efficiency is evaluated from rolled-up hours, not from every reading of a day.

use crate::gateway::within;
use crate::support::{DEADLINE, Gateway, NO_ALERTS, data_dir, meter, vehicle};

/// Keeps the rollup from recording any progress.
const NOTHING_ROLLED_UP: &str = "
    create function keep() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger keep before update on hours_progress for each row execute function keep();";

#[test]
fn efficiency_is_judged_once_the_hours_are_rolled_up() {
    let data = data_dir();
    let now = jiff::Timestamp::now();
    let ago = |minutes: i64| (now - jiff::SignedDuration::from_mins(minutes)).to_string();
    let first = Gateway::ready(data.path(), &NO_ALERTS);
    first.sql(NOTHING_ROLLED_UP);
    // Creates a partition for the time a day ago.
    first.send("vehicle", &[vehicle("V0", &ago(25 * 60), 0.1, "")]);
    let meters: Vec<String> = (5..65)
        .map(|n| meter("V1", &ago(n), 0.1, "interval"))
        .collect();
    let vehicles: Vec<String> = (5..65).map(|n| vehicle("V1", &ago(n), 0.05, "")).collect();
    first.send("meter", &meters);
    first.send("vehicle", &vehicles);
    first.terminate();

    let gateway = Gateway::ready(data.path(), &["--alert-interval", "200ms"]);
    // Between two rounds, the search rests for twenty times as long as it worked.
    let wait = |what: &str, condition: &dyn Fn(&Gateway) -> bool| {
        within(DEADLINE * 4, what, || condition(&gateway));
    };
    let low = |g: &Gateway| {
        let page = g.get("/v1/alerts?kind=efficiency_low&state=open");
        page["items"].as_array().unwrap().len()
    };
    // Sessions are evaluated in the same round. After the second one, a whole round has passed.
    for n in 1..=2 {
        gateway.session(
            &format!("s{n}"),
            &format!("S{n}"),
            "MS",
            &ago(60 * n),
            &ago(60 * n - 30),
        );
        let judged = "select count(*) from session_efficiency;";
        wait("a round", &|g| g.sql(judged) == n.to_string());
    }
    assert_eq!(low(&gateway), 0);
    gateway.sql("drop trigger keep on hours_progress;");
    wait("the alert", &|g| low(g) == 1);
    gateway.terminate();
}
