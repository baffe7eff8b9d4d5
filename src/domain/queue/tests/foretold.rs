//! How well entries are foretold: a crowd that comes and goes at random, and
//! the forecasts that were told on joining.

use super::policy::Admit;
use super::*;

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 33) % u64::from(most)).unwrap()
    }
}

/// People come for so many seconds, so many each; who is inside stays for 20 to
/// 60 s. The forecasts of those who entered once it was warm, and what came.
fn samples(policy: QueuePolicy, (seconds, warm): (u32, u32), each: u32) -> Vec<EtaSample> {
    let mut scene = Scene::new(policy);
    let (mut random, mut came, mut samples) = (Random(0x5eed), 0, Vec::new());
    let mut leaving: BTreeSet<(u32, u32)> = BTreeSet::new();
    let mut inside = HashSet::<u32>::new();
    for second in 0..20 * seconds {
        if second < seconds {
            for _ in 0..each {
                came += 1;
                scene.join(came);
            }
        }
        while let Some((at, number)) = leaving.first().copied().filter(|(at, _)| *at <= second) {
            leaving.remove(&(at, number));
            scene.ask(Command::Leave { user: user(number) }).unwrap();
        }
        scene.pass(1);
        for (_, place) in scene.queue.places.iter() {
            let number = place.number().unwrap().0;
            let has_pass = matches!(place.stand, places::Stand::Active { .. });
            if has_pass && inside.insert(number) {
                leaving.insert((second + 20 + random.below(40), number));
            }
        }
        let new = scene.queue.take_eta_samples();
        if second > warm {
            samples.extend(new);
        }
        if scene.queue.places.counts().waiting == 0 && second > seconds {
            break;
        }
    }
    assert!(samples.len() > 500, "{}", samples.len());
    samples
}

/// The error that half of them are below, and the one that nine of ten are.
fn errors(samples: &[EtaSample], of: impl Fn(&EtaSample) -> f64) -> (f64, f64) {
    let mut errors: Vec<f64> = samples.iter().map(of).collect();
    errors.sort_by(f64::total_cmp);
    (errors[errors.len() / 2], errors[errors.len() * 9 / 10])
}

#[test]
fn behind_a_window_entries_are_foretold_to_the_window() {
    let policy = QueuePolicy {
        admit: Some(Admit {
            count: 50,
            every_seconds: 5,
        }),
        ..QueuePolicy::PLAIN
    };
    let samples = samples(policy, (200, 60), 15);
    let (half, most) = errors(&samples, |sample| sample.error_seconds().abs());
    assert!(half <= 5.0 && most <= 10.0, "{half} s, {most} s");
}

/// How long people stay is not known beforehand: only measured.
#[test]
fn at_a_counter_entries_are_foretold_by_how_people_leave() {
    let samples = samples(cap(100), (400, 300), 4);
    let relative =
        |sample: &EtaSample| sample.error_seconds().abs() / sample.actual_seconds.max(10.0);
    let (half, most) = errors(&samples, relative);
    assert!(half <= 0.2 && most <= 0.5, "{half}, {most}");
}
