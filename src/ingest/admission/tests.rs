use super::*;

fn gate(memory: u64) -> (Gate, crossbeam_channel::Receiver<Message>) {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let room = Arc::new(ByteBudget::default());
    room.change(1000);
    (
        Gate::new(memory, room, sender, Arc::new(Progress::new(1, 2))),
        receiver,
    )
}

#[test]
fn memory_is_refused_beyond_the_limit_and_released() {
    let (gate, _receiver) = gate(64 << 10);
    let mut first = gate.memory(None);
    first.grow(16 << 10).unwrap();
    let mut second = gate.memory(None);
    assert_eq!(second.grow(17 << 10), Err(Shed::Memory));
    second = gate.memory(None);
    second.grow(16 << 10).unwrap();
    assert_eq!(first.grow(1), Err(Shed::Memory));
    drop(second);
    first.grow(1).unwrap();
}

#[test]
fn surplus_memory_is_released_and_the_rest_kept() {
    let (gate, _receiver) = gate(64 << 10);
    let share = Arc::new(Share::default());
    let mut first = gate.memory(Some(&share));
    first.grow(16 << 10).unwrap();
    first.shrink_to(4 << 10);
    assert_eq!(share.bytes.load(Ordering::Relaxed), 8 << 10);
    assert_eq!(gate.memory.free_bytes(), (64 - 8) << 10);
    first.shrink_to(1 << 20);
    assert_eq!(
        gate.memory.free_bytes(),
        (64 - 8) << 10,
        "it never grows so"
    );
    first.grow(1 << 10).unwrap();
    assert_eq!(gate.memory.free_bytes(), (64 - 10) << 10);
    drop(first);
    assert_eq!(share.bytes.load(Ordering::Relaxed), 0);
    assert_eq!(gate.memory.free_bytes(), 64 << 10);
}

#[test]
fn one_sender_holds_half_of_the_memory_at_most() {
    let (gate, _receiver) = gate(64 << 10);
    let (greedy, modest) = (Arc::default(), Arc::default());
    let mut first = gate.memory(Some(&greedy));
    first.grow(15 << 10).unwrap();
    let mut second = gate.memory(Some(&greedy));
    assert_eq!(second.grow(2 << 10), Err(Shed::Memory));
    let mut other = gate.memory(Some(&modest));
    other.grow(16 << 10).unwrap();
    drop((first, second));
    let mut third = gate.memory(Some(&greedy));
    third.grow(16 << 10).unwrap();
    drop((third, other));
    let bytes = |share: &Share| share.bytes.load(Ordering::Relaxed);
    assert_eq!((bytes(&greedy), bytes(&modest)), (0, 0));
}

#[test]
fn a_client_that_finds_the_log_full_retries_when_there_is_room() {
    assert_eq!(room_comes_in_seconds(0, 100_000.0), 1);
    assert_eq!(room_comes_in_seconds(16_000_000, 100_000.0), 10);
    assert_eq!(room_comes_in_seconds(1_000_000_000, 1000.0), 60);
    assert_eq!(room_comes_in_seconds(1000, 0.0), 30);
    let (gate, _receiver) = gate(64 << 10);
    assert_eq!(gate.retry_after_seconds(Shed::LogFull), 30);
    assert_eq!(gate.retry_after_seconds(Shed::Memory), 1);
}

#[test]
fn a_refusal_for_load_leaves_nothing_behind() {
    let (gate, receiver) = gate(64 << 10);
    let submit_as = |ack| {
        let mut records = RequestRecords::new(2);
        records.push(&crate::reading::Reading {
            device: crate::reading::ExternalId::new("M").unwrap(),
            at: crate::reading::Timestamp::Y2000,
            energy: crate::reading::Energy {
                kwh: 1.0,
                kind: Default::default(),
            },
            details: crate::reading::Details::Meter { voltage: 1.0 },
        });
        gate.submit(records, gate.memory(None), ack)
    };
    let submit = || submit_as(AckMode::Durable);
    assert!(submit().is_ok());
    let room = gate.log_room.free_bytes();
    assert_eq!(submit().err(), Some(Shed::Queue));
    assert_eq!(gate.log_room.free_bytes(), room);
    drop(receiver.recv().unwrap());
    assert_eq!(gate.log_room.free_bytes(), 1000);
    gate.log_room.change(-990);
    for ack in [AckMode::Buffered, AckMode::Durable, AckMode::Committed] {
        assert_eq!(submit_as(ack).err(), Some(Shed::LogFull));
    }
    drop(receiver);
    gate.log_room.change(990);
    assert_eq!(submit().err(), Some(Shed::Closed));
}
