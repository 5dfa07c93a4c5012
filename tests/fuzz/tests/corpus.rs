//! What is kept in `fuzz/corpus`, and changes of it by lot: each target, for a few seconds, with any compiler. The seed is
//! fixed; `FLOWPIN_FUZZ_SEED` sets another.

use std::{fs, panic, path::Path};

use fuzz_targets::{TARGETS, Target};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// Changed inputs of each target.
const CHANGED: usize = 50_000;
/// The longest, in bytes.
const LONGEST: usize = 4_096;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    // In one order everywhere, for the seed's sake.
    files.sort_unstable();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A few changes, each of a byte, a number at its ends, a piece that is cut, doubled, or another input's.
fn changed(rng: &mut StdRng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = inputs[rng.random_range(0..inputs.len())].clone();
    for _ in 0..rng.random_range(1..=4) {
        let (from, to) = (rng.random_range(0..=bytes.len()), rng.random_range(0..=bytes.len()));
        let piece = from.min(to)..from.max(to).min(from.min(to) + 64);
        match rng.random_range(0..6) {
            0 if from < bytes.len() => bytes[from] ^= 1 << rng.random_range(0..8),
            1 if from < bytes.len() => bytes[from] = rng.next_u32().to_le_bytes()[0],
            2 => drop(bytes.drain(piece)),
            3 => {
                let copy = bytes[piece].to_vec();
                bytes.splice(to..to, copy);
            }
            4 => {
                let other = &inputs[rng.random_range(0..inputs.len())];
                let at = rng.random_range(0..=other.len());
                bytes.truncate(from);
                bytes.extend_from_slice(&other[at..]);
            }
            _ => {
                const ENDS: [&str; 8] =
                    ["0", "-1", "65536", "4294967296", "1e300", "18446744073709551615", "null", "\"\""];
                let text = ENDS[rng.random_range(0..ENDS.len())];
                bytes.splice(piece, text.bytes());
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn run(target: Target) {
    let (name, function) = target;
    let inputs = corpus(name);
    assert!(inputs.len() >= 10, "{name}: {} inputs are few", inputs.len());
    let seed = std::env::var("FLOWPIN_FUZZ_SEED").map_or(1, |text| text.parse().expect("a number"));
    let mut rng = StdRng::seed_from_u64(seed);
    let more: Vec<Vec<u8>> = (0..CHANGED).map(|_| changed(&mut rng, &inputs)).collect();
    for input in inputs.iter().chain(&more) {
        if panic::catch_unwind(|| function(input)).is_err() {
            panic!("{name}, seed {seed}: {:?}", String::from_utf8_lossy(input));
        }
    }
}

macro_rules! targets {
    ($($number:literal $name:ident)*) => {$(
        #[test]
        fn $name() {
            assert_eq!(TARGETS[$number].0, stringify!($name));
            run(TARGETS[$number]);
        }
    )*};
}
targets! { 0 packet 1 config 2 state 3 api 4 kubernetes }
