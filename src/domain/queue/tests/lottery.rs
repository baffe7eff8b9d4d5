//! The opening by lot: what is public when, and who can tell that it was tampered
//! with.

use super::*;

fn lottery() -> Scene {
    let mut scene = Scene::new(QueuePolicy {
        opening: policy::Opening::Lottery,
        ..cap(10)
    });
    scene.now = Timestamp(OPENS.0 - 5_000);
    scene
}

#[test]
fn nobody_joins_a_lottery_before_the_hash_of_its_seed_is_public() {
    let mut scene = lottery();
    let join = Command::Join {
        user: user(1),
        ticket: ticket(1),
        claim: None,
    };
    assert_eq!(scene.ask(join), Err(Refusal::SeedMissing));
    assert!(scene.queue.wants_seed());
    scene.ask(Command::LotterySeed(Seed([3; 32]))).unwrap();
    scene.ask(Command::LotterySeed(Seed([4; 32]))).unwrap();
    let Ok(Reply::Draw(draw)) = scene.ask(Command::Draw) else {
        panic!("the draw is public");
    };
    assert_eq!(
        draw.commitment,
        Seed([3; 32]).commitment(),
        "the first stays"
    );
    assert_eq!(draw.seed, None, "until it is drawn");
    let (standing, _) = scene.join(1);
    assert_eq!((standing.number, standing.position), (None, None));
}

#[test]
fn a_draw_orders_by_the_seed_alone_survives_a_restart_and_can_be_verified() {
    let mut scene = lottery();
    scene.ask(Command::LotterySeed(Seed([3; 32]))).unwrap();
    for number in 1..=50 {
        scene.join(number);
    }
    scene.ask(Command::Leave { user: user(50) }).unwrap();
    scene.now = OPENS;
    scene.run();
    let (late, _) = scene.join(51);
    assert_eq!(late.number, Some(TicketNumber(50)), "behind the 49 drawn");
    let draw = |scene: &mut Scene| match scene.ask(Command::Draw) {
        Ok(Reply::Draw(draw)) => draw,
        other => panic!("{other:?}"),
    };
    let drawn = draw(&mut scene);
    assert_eq!(draw::verify(&drawn), Ok(()));
    assert_eq!(drawn.entrants.len(), 49);
    let numbers: Vec<_> = (1..=49).map(|n| scene.state(n).number).collect();
    assert_ne!(
        numbers,
        (1..=49).map(|n| Some(TicketNumber(n))).collect::<Vec<_>>()
    );
    // As the store has them: those who still wait were never written again.
    let mut rows: Vec<_> = scene.queue.place_rows().collect();
    for row in &mut rows {
        row.number = row.number.filter(|_| !row.entrant);
    }
    let queue = scene.queue.row();
    let plan = Arc::clone(scene.queue.plan());
    scene.queue = Queue::restore(
        plan,
        QueueState {
            queue,
            places: rows,
        },
    );
    let again: Vec<_> = (1..=49).map(|n| scene.state(n).number).collect();
    assert_eq!(again, numbers);
    assert_eq!(draw(&mut scene), drawn);
}

#[test]
fn a_tampered_draw_is_refused() {
    use draw::{Draw, DrawFault, Entrant, Ranks, entrants_hash};
    let seed = Seed([9; 32]);
    let ranks = Ranks::new(&seed);
    let mut tickets: Vec<_> = (1..=5).map(ticket).collect();
    tickets.sort_by_key(|ticket| ranks.of(*ticket));
    let numbered = |tickets: &[QueueTicketId]| -> Arc<[Entrant]> {
        let numbers = (1..).map(TicketNumber);
        let entrants = tickets.iter().zip(numbers);
        entrants
            .map(|(ticket_id, number)| Entrant {
                ticket_id: *ticket_id,
                number,
            })
            .collect()
    };
    let good = Draw {
        commitment: seed.commitment(),
        seed: Some(seed),
        beacon: None,
        entrants_hash: Some(entrants_hash(tickets.iter().copied())),
        entrants: numbered(&tickets),
    };
    assert_eq!(draw::verify(&good), Ok(()));
    let check = |draw: Draw| draw::verify(&draw).unwrap_err();
    let other_seed = Draw {
        seed: Some(Seed([8; 32])),
        ..good.clone()
    };
    assert_eq!(check(other_seed), DrawFault::WrongSeed);
    let mut swapped = tickets.clone();
    swapped.swap(1, 3);
    let swapped = Draw {
        entrants: numbered(&swapped),
        ..good.clone()
    };
    assert!(matches!(check(swapped), DrawFault::WrongRank(_)));
    let fewer = Draw {
        entrants: numbered(&tickets[..4]),
        ..good.clone()
    };
    assert_eq!(check(fewer), DrawFault::WrongEntrants);
    // Whatever is said to be in the key besides the seed could have been tried
    // out until a friend came first.
    let with_a_beacon = Draw {
        beacon: Some(String::new()),
        ..good.clone()
    };
    assert_eq!(check(with_a_beacon), DrawFault::UnknownBeacon);
    let mut renumbered: Vec<Entrant> = good.entrants.to_vec();
    renumbered[4].number = TicketNumber(9);
    let renumbered = Draw {
        entrants: renumbered.into(),
        ..good
    };
    assert_eq!(check(renumbered), DrawFault::WrongNumber(TicketNumber(9)));
}
