//! A backend that plays its part by a script.

use std::{pin::Pin, time::Duration};

use lb_probes::{Conversation, MySql, Postgres, Redis};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

/// What a fake does next.
#[derive(Clone, Debug)]
pub enum Turn {
    Says(Vec<u8>),
    /// Reads so many bytes and compares them.
    Hears(Vec<u8>),
}

pub fn says(bytes: impl AsRef<[u8]>) -> Turn {
    Turn::Says(bytes.as_ref().into())
}

pub fn hears(bytes: impl AsRef<[u8]>) -> Turn {
    Turn::Hears(bytes.as_ref().into())
}

/// Any of the checks.
pub trait Check {
    fn over(&self, stream: DuplexStream) -> Pin<Box<dyn Future<Output = Result<(), String>> + '_>>;
}

macro_rules! checks {
    ($($check:ty),*) => {$(
        impl Check for $check {
            fn over(&self, stream: DuplexStream) -> Pin<Box<dyn Future<Output = Result<(), String>> + '_>> {
                Box::pin(self.check(stream))
            }
        }
    )*};
}
checks!(Conversation, MySql, Postgres, Redis);

/// How a check came out, and what it said after the fake's last turn.
pub type Played = (Result<(), String>, Vec<u8>);

/// Plays the turns, then closes. Pieces of `size` bytes at most go over the stream at once.
pub async fn play_in_pieces(size: usize, check: &impl Check, turns: &[Turn]) -> Played {
    let (near, mut far) = duplex(size);
    let fake = async move {
        for turn in turns {
            match turn {
                // The check may have heard enough.
                Turn::Says(bytes) => drop(far.write_all(bytes).await),
                Turn::Hears(bytes) => {
                    let mut heard = vec![0; bytes.len()];
                    far.read_exact(&mut heard).await.expect("the check says something");
                    assert_eq!(heard.escape_ascii().to_string(), bytes.escape_ascii().to_string());
                }
            }
        }
        let _ = far.shutdown().await;
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("a duplex stream has no errors of its own");
        rest
    };
    // The clock stands still, and jumps when nobody has anything to do: then both wait for each other.
    let both = async { tokio::join!(check.over(near), fake) };
    tokio::time::timeout(Duration::from_secs(1), both).await.expect("one of them has something to say")
}

/// Plays the turns: whole, and cut at each place of what the fake says. It comes out the same.
pub fn play(check: &impl Check, turns: &[Turn]) -> Played {
    block_on(async {
        let whole = play_in_pieces(1 << 20, check, turns).await;
        let longest = turns.iter().map(|turn| match turn {
            Turn::Says(bytes) | Turn::Hears(bytes) => bytes.len(),
        });
        for size in 1..longest.max().unwrap_or(0).min(300) {
            assert_eq!(play_in_pieces(size, check, turns).await, whole, "in pieces of {size}");
        }
        whole
    })
}

/// How it comes out.
pub fn outcome(check: &impl Check, turns: &[Turn]) -> Result<(), String> {
    play(check, turns).0
}

/// The reason that it fails for.
pub fn reason(check: &impl Check, turns: &[Turn]) -> String {
    outcome(check, turns).expect_err("it fails")
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime of one thread")
        .block_on(future)
}
