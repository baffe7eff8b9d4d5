//! The check must reject what a broken server shows, and nothing else.

use super::*;

const RULES: Rules = Rules {
    cap: 2,
    count: 3,
    every: 1_000,
    ttl: 3_000,
};

fn told(user: User, call: Call, at: Millis, told: Told) -> Record {
    Record {
        user,
        call,
        sent_at: at,
        told,
        told_at: at + 2,
    }
}

fn place(number: u32, state: State) -> Told {
    Told::Place(Shown {
        number,
        is_new: false,
        state,
    })
}

fn joins(user: User, number: u32, at: Millis) -> Record {
    let state = State::Waiting { position: 100 };
    let (is_new, call) = (true, Call::Join);
    let shown = Shown {
        number,
        is_new,
        state,
    };
    told(user, call, at, Told::Place(shown))
}

fn waits(user: User, number: u32, position: u32, at: Millis) -> Record {
    told(
        user,
        Call::Look,
        at,
        place(number, State::Waiting { position }),
    )
}

/// Shown at once that they entered at `at`.
fn enters(user: User, number: u32, at: Millis) -> Record {
    let expires_at = at + RULES.ttl;
    let state = State::Admitted { expires_at };
    told(user, Call::Look, at, place(number, state))
}

fn leaves(user: User, at: Millis) -> Record {
    told(user, Call::Leave, at, Told::Done)
}

fn found(kills: &[Kill], records: &[Record]) -> Vec<Finding> {
    let history = History {
        records: records.to_vec(),
        kills: kills.to_vec(),
    };
    history.check(RULES).into_iter().collect()
}

const KILLED: Kill = Kill {
    at: 500,
    loses: false,
};

const FORGETS: Kill = Kill {
    at: 500,
    loses: true,
};

#[test]
fn what_was_promised_and_kept_is_accepted() {
    let records = [
        joins(0, 1, 0),
        joins(1, 2, 10),
        joins(2, 7, 20),
        waits(1, 2, 2, 30),
        enters(0, 1, 40),
        enters(1, 2, 40),
        waits(2, 7, 1, 600),
        leaves(0, 700),
        told(0, Call::Look, 710, place(1, State::Left)),
        enters(2, 7, 705),
        joins(0, 8, 800),
        leaves(2, 900),
        told(1, Call::Look, 3_050, place(2, State::Expired)),
        enters(0, 8, 3_060),
        leaves(0, 3_070),
    ];
    assert_eq!(found(&[KILLED], &records), []);
    let history = History {
        records: records.to_vec(),
        kills: Vec::new(),
    };
    assert_eq!(history.check_end(RULES, 4), Findings::new());
    assert_eq!(history.admitted(RULES), 4);
    let (told, least, most) = (5, 4, 4);
    let wrong = Finding::WrongTotal { told, least, most };
    assert_eq!(history.check_end(RULES, 5), Findings::from([wrong]));
}

#[test]
fn a_place_that_isnt_there_is_found() {
    let lost = [Finding::Lost { user: 0, number: 4 }];
    let gone = |call, at| told(0, call, at, Told::NoPlace);
    let unasked = [joins(0, 4, 400), gone(Call::Look, 600)];
    assert_eq!(found(&[], &unasked), lost);
    assert_eq!(found(&[KILLED], &unasked), lost);
    assert_eq!(found(&[FORGETS], &unasked), []);
    // What was acknowledged long before had been written.
    let early = Kill {
        at: 400 + 2 * WRITTEN_BEHIND,
        loses: true,
    };
    let late = [joins(0, 4, 400), gone(Call::Look, 4_000)];
    assert_eq!(found(&[early], &late), lost);
    // The ticket must bring it back ...
    let with_ticket = [&unasked[..], &[gone(Call::Restore, 610)]].concat();
    assert_eq!(found(&[FORGETS], &with_ticket), lost);
    // ... to the number.
    let state = State::Waiting { position: 90 };
    let back = |number| told(0, Call::Restore, 610, place(number, state));
    let restored = [&unasked[..], &[back(4)]].concat();
    assert_eq!(found(&[FORGETS], &restored), []);
    let (user, was, is) = (0, 4, 5);
    let moved = [&unasked[..], &[back(5)]].concat();
    assert_eq!(
        found(&[FORGETS], &moved),
        [Finding::Moved { user, was, is }]
    );
    // An end is never lost.
    let ended = [joins(0, 4, 400), leaves(0, 450), gone(Call::Look, 600)];
    assert_eq!(found(&[FORGETS], &ended), lost);
    // Who is shown an older place has lost the newer.
    let again = [
        joins(0, 3, 0),
        leaves(0, 100),
        joins(0, 4, 400),
        told(0, Call::Look, 600, place(3, State::Left)),
    ];
    assert_eq!(found(&[FORGETS], &again), []);
    assert_eq!(found(&[KILLED], &again), lost);
}

#[test]
fn numbers_that_are_given_twice_or_fall_are_found() {
    let number = 4;
    let twice = [joins(0, 4, 0), joins(1, 4, 10)];
    assert_eq!(found(&[], &twice), [Finding::NumberTwice { number }]);
    let (number, below) = (3, 4);
    let fell = [joins(0, 4, 0), joins(1, 3, 10)];
    assert_eq!(found(&[], &fell), [Finding::NumberFell { number, below }]);
    // Of two who come at once either may be the first.
    assert_eq!(found(&[], &[joins(0, 4, 0), joins(1, 3, 1)]), []);
    // As may be who came before, and only hears of it now.
    assert_eq!(found(&[], &[joins(0, 4, 0), waits(1, 3, 1, 10)]), []);
}

#[test]
fn who_is_moved_back_is_found() {
    let (number, was, is) = (4, 2, 3);
    let grew = [joins(0, 4, 0), waits(0, 4, 2, 10), waits(0, 4, 3, 20)];
    assert_eq!(
        found(&[KILLED], &grew),
        [Finding::PositionGrew { number, was, is }]
    );
    let waits_again = [joins(0, 4, 0), enters(0, 4, 10), waits(0, 4, 1, 20)];
    let went_back = [Finding::WentBack { number }];
    assert_eq!(found(&[KILLED], &waits_again), went_back);
    let back_inside = [joins(0, 4, 0), leaves(0, 5), enters(0, 4, 10)];
    assert_eq!(found(&[KILLED], &back_inside), went_back);
    let (user, was, is) = (0, 4, 5);
    let moved = [joins(0, 4, 0), waits(0, 5, 1, 10)];
    assert_eq!(found(&[KILLED], &moved), [Finding::Moved { user, was, is }]);
}

#[test]
fn who_is_admitted_twice_or_put_out_is_found() {
    let number = 4;
    let twice = [joins(0, 4, 0), enters(0, 4, 10), enters(0, 4, 600)];
    assert_eq!(
        found(&[KILLED], &twice),
        [Finding::AdmittedTwice { number }]
    );
    let put_out = [Finding::PutOut { number }];
    let ends = |at, state| told(0, Call::Look, at, place(4, state));
    let left = [joins(0, 4, 0), enters(0, 4, 10), ends(20, State::Left)];
    assert_eq!(found(&[], &left), put_out);
    let early = [
        joins(0, 4, 0),
        enters(0, 4, 10),
        ends(2_900, State::Expired),
    ];
    assert_eq!(found(&[], &early), put_out);
    let unseen = [joins(0, 4, 0), ends(2_900, State::Expired)];
    assert_eq!(found(&[], &unseen), put_out);
    let unseen = [joins(0, 4, 0), ends(3_000, State::Expired)];
    assert_eq!(found(&[], &unseen), []);
    let bought = told(0, Call::Buy, 15, Told::Nothing);
    let left = [
        joins(0, 4, 0),
        enters(0, 4, 10),
        bought,
        ends(20, State::Left),
    ];
    assert_eq!(found(&[], &left), []);
}

#[test]
fn a_good_pass_that_is_refused_is_found() {
    let refused = |at| told(0, Call::Hold, at, Told::PassRefused);
    let inside = [joins(0, 4, 0), enters(0, 4, 10)];
    let good = [&inside[..], &[refused(600)]].concat();
    let number = 4;
    assert_eq!(found(&[KILLED], &good), [Finding::PassRefused { number }]);
    let over = [&inside[..], &[refused(3_000)]].concat();
    assert_eq!(found(&[KILLED], &over), []);
}

#[test]
fn who_is_overtaken_is_found() {
    let (number, by) = (1, 2);
    let overtaken = [Finding::Overtaken { number, by }];
    let both = [joins(0, 1, 400), joins(1, 2, 410)];
    let entered = [&both[..], &[enters(1, 2, 600), enters(0, 1, 700)]].concat();
    assert_eq!(found(&[], &entered), overtaken);
    let waiting = [&both[..], &[enters(1, 2, 600), waits(0, 1, 1, 700)]].concat();
    assert_eq!(found(&[], &waiting), overtaken);
    // Who gave up in time was not.
    let left = [&both[..], &[leaves(0, 500), enters(1, 2, 600)]].concat();
    assert_eq!(found(&[], &left), []);
    // Nor whom nobody knew of any more.
    let forgotten = told(0, Call::Look, 650, Told::NoPlace);
    let pass = State::Admitted {
        expires_at: 700 + RULES.ttl,
    };
    let back = told(0, Call::Restore, 700, place(1, pass));
    let lost = [&both[..], &[enters(1, 2, 600), forgotten, back]].concat();
    assert_eq!(found(&[FORGETS], &lost), []);
}

#[test]
fn too_many_inside_are_found() {
    let three = [joins(0, 1, 0), joins(1, 2, 10), joins(2, 3, 20)];
    let two = [enters(0, 1, 100), enters(1, 2, 200)];
    let over = [&three[..], &two, &[enters(2, 3, 300)]].concat();
    let (inside, at) = (3, 300);
    assert_eq!(found(&[KILLED], &over), [Finding::OverCap { inside, at }]);
    // Also where one has asked to leave, and later was inside.
    let unheard = [
        told(0, Call::Leave, 210, Told::Nothing),
        told(0, Call::Look, 400, enters(0, 1, 100).told),
    ];
    let over = [&three[..], &two, &unheard, &[enters(2, 3, 300)]].concat();
    assert_eq!(found(&[KILLED], &over), [Finding::OverCap { inside, at }]);
    let left = [&three[..], &two, &[leaves(0, 300), enters(2, 3, 300)]].concat();
    assert_eq!(found(&[KILLED], &left), []);
    let over_by_time = [&three[..], &two, &[enters(2, 3, 3_100)]].concat();
    assert_eq!(found(&[KILLED], &over_by_time), []);
}

#[test]
fn too_many_in_a_window_are_found() {
    let four = |last: Millis| {
        let mut records = Vec::new();
        for (user, at) in [0, 400, 800, last].into_iter().enumerate() {
            let number = u32::try_from(user).unwrap() + 1;
            records.push(joins(user, number, at - 10));
            records.push(enters(user, number, at));
            records.push(leaves(user, at + 60));
        }
        found(&[KILLED], &records)
    };
    let (entered, from) = (4, 0);
    assert_eq!(four(999), [Finding::TooFast { entered, from }]);
    assert_eq!(four(1_000), []);
}

#[test]
fn who_is_skipped_is_found_in_the_end() {
    let history = History {
        records: vec![joins(0, 1, 0), waits(0, 1, 1, 10)],
        kills: Vec::new(),
    };
    let (user, number) = (0, 1);
    let skipped = Finding::NeverAdmitted { user, number };
    assert_eq!(history.check_end(RULES, 0), Findings::from([skipped]));
}
