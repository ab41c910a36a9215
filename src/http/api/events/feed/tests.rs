use super::*;
use crate::http::api::events::filter::Kind;
use crate::reading::Stream;

fn feed_with(bytes_max: usize, ready_timeout: Duration) -> Arc<Feed> {
    Arc::new(Feed::with(bytes_max, ready_timeout))
}

fn events(from: u64, to: u64) -> Vec<Event> {
    let event = |n| Event {
        kind: Kind::Status(Stream::Meter),
        id: format!("M{n}"),
        data: format!("{{\"n\":{n}}}"),
    };
    (from..to).map(event).collect()
}

fn texts(next: &Next) -> Vec<String> {
    let Next::Events(text) = next else {
        panic!("{next:?}");
    };
    let lines = std::str::from_utf8(text).unwrap().lines();
    let data = lines.filter_map(|line| line.strip_prefix("data: "));
    data.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_listener_resumes_after_the_event_it_names() {
    let feed = feed_with(1 << 20, Duration::from_millis(50));
    feed.set_sight(Sight::Clear);
    feed.publish(events(0, 3), None);
    let epoch = feed.ring().epoch();
    let last = number_text(epoch, FIRST);
    let mut listener = feed.listen(Filter::default(), Some(&last)).await.unwrap();
    assert_eq!(texts(&listener.next().await), ["{\"n\":1}", "{\"n\":2}"]);
    let mut newest = feed.listen(Filter::default(), None).await.unwrap();
    feed.publish(events(3, 4), None);
    assert_eq!(texts(&newest.next().await), ["{\"n\":3}"]);
    assert_eq!(texts(&listener.next().await), ["{\"n\":3}"]);
    assert_eq!(feed.listeners(), 2);
    drop((listener, newest));
    assert_eq!(feed.listeners(), 0);
}

#[tokio::test]
async fn a_listener_that_lost_events_gets_the_reason_and_a_number() {
    let feed = feed_with(1000, Duration::from_millis(50));
    feed.set_sight(Sight::Clear);
    feed.publish(events(0, 3), None);
    for unknown in ["nonsense", "0000000000000001-1"] {
        let mut listener = feed.listen(Filter::default(), Some(unknown)).await.unwrap();
        let next = listener.next().await;
        assert!(matches!(next, Next::Reset(Reset::Unknown)), "{next:?}");
        assert_eq!(listener.number(), number_text(feed.ring().epoch(), 3));
        feed.publish(events(0, 1), None);
        assert_eq!(texts(&listener.next().await), ["{\"n\":0}"]);
        feed.restart(None);
        feed.publish(events(0, 3), None);
        let next = listener.next().await;
        assert!(matches!(next, Next::Reset(Reset::Interrupted)), "{next:?}");
    }
    let mut slow = feed.listen(Filter::default(), None).await.unwrap();
    for _ in 0..100 {
        feed.publish(events(0, 20), None);
    }
    let next = slow.next().await;
    assert!(matches!(next, Next::Reset(Reset::TooSlow)), "{next:?}");
}

#[tokio::test]
async fn a_listener_knows_which_state_it_must_load() {
    let token = |text: &str| Some(text.parse().unwrap());
    let feed = feed_with(1 << 20, Duration::from_millis(50));
    feed.set_sight(Sight::Clear);
    feed.publish(events(0, 1), token("7.1.a"));
    // A pass without changes has looked too.
    feed.publish(Vec::new(), token("7.1.b"));
    let mut listener = feed.listen(Filter::default(), None).await.unwrap();
    assert_eq!(listener.seen(), token("7.1.b"));
    // A reset waits for the first look, so that its token is of that look.
    feed.set_sight(Sight::Unknown);
    feed.restart(None);
    let waited = timeout(Duration::from_millis(20), listener.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    feed.publish(Vec::new(), token("7.1.c"));
    feed.set_sight(Sight::Clear);
    let next = listener.next().await;
    assert!(matches!(next, Next::Reset(Reset::Interrupted)), "{next:?}");
    assert_eq!(listener.seen(), token("7.1.c"));
}

#[tokio::test]
async fn listeners_are_bounded_and_a_stop_ends_them() {
    let feed = feed_with(1000, Duration::from_millis(50));
    feed.set_sight(Sight::Clear);
    let mut all = Vec::new();
    for _ in 0..LISTENERS_MAX {
        all.push(feed.listen(Filter::default(), None).await.unwrap());
    }
    assert!(feed.listen(Filter::default(), None).await.is_err());
    all.pop();
    all.push(feed.listen(Filter::default(), None).await.unwrap());
    let mut one = all.pop().unwrap();
    let waiting = tokio::spawn(async move { one.next().await });
    feed.stop();
    assert!(matches!(waiting.await.unwrap(), Next::End));
    assert!(matches!(all[0].next().await, Next::End));
}

#[tokio::test]
async fn a_listener_is_refused_while_the_poll_sees_nothing() {
    let feed = feed_with(1000, Duration::from_millis(50));
    assert!(feed.listen(Filter::default(), None).await.is_err());
    feed.set_sight(Sight::Blocked);
    assert!(feed.listen(Filter::default(), None).await.is_err());
    assert_eq!(feed.listeners(), 0);
}
