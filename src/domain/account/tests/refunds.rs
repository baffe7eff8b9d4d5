//! What cancels give back.

use std::collections::{BTreeSet, HashSet};

use super::*;

fn refund(n: u128, no: u32, amount: i64) -> Refund {
    Refund {
        order: OrderId(Uuid::from_u128(n)),
        no: CancelNo(no),
        timetable: TimetableId(Uuid::from_u128(9)),
        amount: Money(amount),
    }
}

fn credit(account: &mut Account, refund: Refund, answer: Option<KeyedAnswer>) -> Reply {
    let known = Known::default();
    let command = Command::Credit {
        refund,
        answer,
        known,
    };
    run(account, command).unwrap()
}

#[test]
fn a_refund_comes_in_once_however_often_it_is_told() {
    let mut account = Account::default();
    for _ in 0..3 {
        assert_eq!(credit(&mut account, refund(1, 1, 70), None), Reply::Done);
        assert_eq!(account.spendable(), Money(70));
    }
    credit(&mut account, refund(1, 2, 30), None);
    credit(&mut account, refund(2, 1, 5), None);
    assert_eq!(account.spendable(), Money(105));
    // As the store has it, after a restart.
    let seen = [refund(1, 1, 70), refund(2, 1, 5)].map(|r| (r.order, r.no));
    let mut again = Account::restore(Money(75), [], [], (seen, Seq(9)), Keys::default());
    credit(&mut again, refund(1, 1, 70), None);
    assert_eq!(again.spendable(), Money(75));
    credit(&mut again, refund(1, 2, 30), None);
    assert_eq!(again.spendable(), Money(105));
}

#[test]
fn a_refund_beyond_the_largest_balance_comes_in_all_the_same() {
    let none = ([], Seq(9));
    let mut account = Account::restore(BALANCE_MAX, [], [], none, Keys::default());
    credit(&mut account, refund(1, 1, 70), None);
    assert_eq!(account.spendable(), BALANCE_MAX.plus(Money(70)));
}

#[test]
fn the_answer_to_a_cancel_is_stored_with_its_refund_and_never_keeps_it_back() {
    let answer = |claim: KeyClaim| {
        Some(KeyedAnswer {
            key: claim,
            status: 200,
            body: "{}".to_owned(),
        })
    };
    let mut account = Account::default();
    run(&mut account, Command::Reserve(claim(1))).unwrap();
    let first = credit(&mut account, refund(1, 1, 70), answer(claim(1)));
    assert_eq!(first, Reply::Done);
    let again = run(&mut account, Command::Reserve(repeated(1)));
    assert_eq!(again, Ok(Reply::KeyIsAnswered));
    // The saga of a repetition, and one under a key that is another request's.
    let second = credit(&mut account, refund(1, 1, 70), answer(repeated(1)));
    assert_eq!(second, Reply::KeyIsAnswered);
    let another = KeyClaim {
        fingerprint: 99,
        ..claim(1)
    };
    credit(&mut account, refund(2, 1, 30), answer(another));
    assert_eq!(account.spendable(), Money(100));
    // Nothing was paid, so nothing comes in.
    credit(&mut account, refund(3, 1, 0), answer(claim(3)));
    assert_eq!(account.spendable(), Money(100));
    let stored = run(&mut account, Command::Reserve(repeated(3)));
    assert_eq!(stored, Ok(Reply::KeyIsAnswered));
}

/// Orders from here on are not those that are told again.
const OTHERS: u128 = 1 << 32;

/// An account, and what the store has of its refunds: oldest first.
#[derive(Default)]
struct Wallet {
    account: Account,
    seq: Seq,
    stored: Vec<Refund>,
    /// The same, by order and cancel.
    names: HashSet<(Uuid, u32)>,
}

impl Wallet {
    fn has(&self, refund: Refund) -> bool {
        self.names.contains(&(refund.order.0, refund.no.0))
    }

    fn ask(&mut self, refund: Refund, known: Known) -> Result<(), Seq> {
        let command = Command::Credit {
            refund,
            answer: None,
            known,
        };
        let result = step(&mut self.account, &mut self.seq, NOW, command);
        for (_, event) in &result.events {
            assert!(matches!(event, Event::Credited { .. }), "{event:?}");
            // `a_refund_is_credited_once`
            let is_new = self.names.insert((refund.order.0, refund.no.0));
            assert!(is_new, "the store refuses {refund:?}");
            self.stored.push(refund);
        }
        match result.outcome {
            Ok(_) => Ok(()),
            Err(Refusal::AskTheStore { upto }) => Err(upto),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// As the saga of a cancel does; how often it asked the store. After the first
    /// time so many others come in before it is back.
    fn credit(&mut self, refund: Refund, others: u128) -> u32 {
        let (mut known, mut looks) = (Known::default(), 0);
        while let Err(upto) = self.ask(refund, known) {
            let is_there = self.has(refund);
            known = if is_there {
                Known::Credited
            } else {
                Known::NotBy(upto)
            };
            looks += 1;
            assert!(looks <= 2, "it never ends");
            for n in 0..others * u128::from(looks == 1) {
                let other = self::refund(OTHERS + self.stored.len() as u128, n as u32, 1);
                if let Err(upto) = self.ask(other, Known::default()) {
                    self.ask(other, Known::NotBy(upto)).unwrap();
                }
            }
        }
        looks
    }

    fn restart(&mut self) {
        let oldest = self.stored.len().saturating_sub(CREDITED_MAX);
        let last: Vec<_> = self.stored[oldest..]
            .iter()
            .map(|r| (r.order, r.no))
            .collect();
        let balance = self.account.balance();
        self.account = Account::restore(balance, [], [], (last, self.seq), Keys::default());
    }
}

#[test]
fn a_refund_that_is_told_again_after_any_number_of_others_comes_in_once() {
    let mut wallet = Wallet::default();
    let many = CREDITED_MAX as u128 + 1;
    for n in 1..=many {
        let looks = wallet.credit(refund(n, 1, 1), 0);
        assert_eq!(looks, 0, "nothing is forgotten before the {n}th");
    }
    for restarts in [false, true] {
        if restarts {
            wallet.restart();
        }
        assert_eq!(wallet.credit(refund(1, 1, 1), 0), 1);
        assert_eq!(wallet.credit(refund(many, 1, 1), 0), 0);
        assert_eq!(wallet.account.balance(), Money(many as i64));
    }
    // A new one comes in, however many do while the store is asked.
    for (others, looks) in [(0, 1), (CREDITED_MAX as u128 - 1, 1), (many, 2)] {
        let new = refund(1_000 + others, 7, 1);
        assert_eq!(wallet.credit(new, others), looks, "{others}");
        assert!(wallet.has(new));
    }
    assert_eq!(wallet.account.balance(), Money(wallet.stored.len() as i64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn refunds_come_in_once_over_repetitions_and_restarts(
        steps in proptest::collection::vec((0..60u128, 0..4u128, 0..20u8), 50..200)
    ) {
        let mut wallet = Wallet::default();
        let mut told = BTreeSet::new();
        for (n, others, restart) in steps {
            if restart == 0 {
                wallet.restart();
            }
            wallet.credit(refund(n, 1, 1), others * 50);
            told.insert(n);
            prop_assert!(wallet.has(refund(n, 1, 1)));
            prop_assert_eq!(wallet.account.balance(), Money(wallet.stored.len() as i64));
        }
        let ours = wallet.stored.iter().filter(|refund| refund.order.0.as_u128() < OTHERS);
        prop_assert_eq!(ours.count(), told.len());
    }
}
