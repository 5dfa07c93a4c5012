//! Whatever a backend says, in whatever pieces: a check ends, reads in bounds, and gives a reason that is a line.

use lb_probes::{
    Conversation, MOST_READ, MySql, Pattern, Postgres, Redis, Step, escape, postgres::Role as PostgresRole,
    redis::Role as RedisRole, unescape,
};
use proptest::{collection::vec, prelude::*};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::fake::{Check, block_on};

/// Longest reason: what is shown of an answer with four characters a byte, and of a pattern, and words.
const LONGEST: usize = 1_200;

/// Says all of it, whatever it hears, and closes. How the check came out, and how much of it was taken.
fn against(check: &impl Check, said: &[u8], size: usize) -> (Result<(), String>, usize) {
    block_on(async {
        let (near, far) = duplex(size);
        let (mut hears, mut says) = tokio::io::split(far);
        let saying = async {
            let mut taken = 0;
            while taken < said.len() {
                match says.write(&said[taken..]).await {
                    Ok(n) => taken += n,
                    Err(_) => break,
                }
            }
            let _ = says.shutdown().await;
            taken
        };
        let hearing = async {
            let mut heard = Vec::new();
            hears.read_to_end(&mut heard).await
        };
        let (outcome, taken, _) = tokio::join!(check.over(near), saying, hearing);
        (outcome, taken)
    })
}

fn holds(check: &impl Check, said: &[u8], size: usize) -> Result<(), TestCaseError> {
    let (outcome, taken) = against(check, said, size);
    // What lies in the stream has left the backend, but wasn't read.
    prop_assert!(taken <= 2 * MOST_READ + size, "{taken}");
    if let Err(why) = outcome {
        prop_assert!(!why.is_empty() && why.len() < LONGEST, "{why}");
        prop_assert!(!why.chars().any(char::is_control), "{why}");
    }
    Ok(())
}

/// All of them, with all that they can ask.
fn hold(said: &[u8], size: usize) -> Result<(), TestCaseError> {
    let text = || Some("x".to_owned());
    for role in [None, Some(RedisRole::Master), Some(RedisRole::Replica)] {
        holds(&Redis { password: None, user: None, role }, said, size)?;
        holds(&Redis { password: text(), user: text(), role }, said, size)?;
    }
    for role in [None, Some(PostgresRole::Primary), Some(PostgresRole::Standby)] {
        let check = Postgres { user: "x".into(), database: None, role, password: None };
        holds(&check, said, size)?;
        holds(&Postgres { password: text(), ..check }, said, size)?;
    }
    holds(&MySql { user: None }, said, size)?;
    holds(&MySql { user: text() }, said, size)?;
    let expect = |pattern: Result<Pattern, _>| Step::Expect(pattern.expect("a pattern"));
    let steps = [expect(Pattern::contains("ab")), Step::Send(b"x".into()), expect(Pattern::matches("c+$"))];
    holds(&Conversation::new(steps.into()).expect("a conversation"), said, size)
}

/// Bytes of the protocols' grammar, so that more than the first byte is looked at.
fn grammar() -> impl Strategy<Value = Vec<u8>> {
    let redis = prop_oneof![
        Just(b"+PONG\r\n".to_vec()),
        Just(b"+OK\r\n".to_vec()),
        Just(b"-LOADING \r\n".to_vec()),
        "\\$[0-9]{1,3}\r\n(role:)?[a-z]{0,8}\r\n".prop_map(String::into_bytes),
    ];
    let postgres = ("[RESKZDTCNv]", vec(any::<u8>(), 0..20), 0..14_u32).prop_map(|(kind, body, number)| {
        let body = [&number.to_be_bytes(), &body[..]].concat();
        let length = u32::try_from(body.len() + 4).expect("it is short");
        [kind.as_bytes(), &length.to_be_bytes(), &body].concat()
    });
    let mysql =
        (0..4_u8, prop_oneof![Just(0), Just(1), Just(10), Just(254), Just(255)], vec(any::<u8>(), 0..40))
            .prop_map(|(number, kind, body)| {
                let length = u8::try_from(body.len() + 1).expect("it is short");
                [&[length, 0, 0, number, kind], &body[..]].concat()
            });
    let any = vec(any::<u8>(), 0..30);
    vec(prop_oneof![redis, postgres, mysql, any], 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything(said in vec(any::<u8>(), 0..400), size in 1..500_usize) {
        hold(&said, size)?;
    }

    #[test]
    fn nearly_right(said in grammar(), size in 1..200_usize) {
        hold(&said, size)?;
    }

    #[test]
    fn bytes_are_written_so_that_they_are_read_back(bytes in vec(any::<u8>(), 0..60)) {
        let text = escape(&bytes);
        prop_assert!(!text.chars().any(char::is_control), "{text}");
        prop_assert_eq!(unescape(&text), Ok(bytes));
    }

    #[test]
    fn texts_are_read_or_refused_in_a_line(text in r#"(\\[rnt0x\\ae]|[0-9a-fé"]){0,12}"#) {
        match unescape(&text) {
            Ok(bytes) => prop_assert_eq!(unescape(&escape(&bytes)), Ok(bytes)),
            Err(why) => prop_assert!(why.to_string().contains(&text)),
        }
    }
}

#[test]
fn who_never_stops_is_stopped() {
    let long = |start: &str, fill: &str| [start.as_bytes(), fill.repeat(200_000).as_bytes()].concat();
    let said = [
        long("", "a"),
        long("+PONG\r\n$1000000\r\n", "x:y\r\n"),
        long("", "S\0\0\0\x04"),
        long("", "N\0\0\0\x04"),
        long("E\0\0\x3f\x00", "M"),
        long("\x05\0\0\0\x0a8\0", "\x01"),
    ];
    for said in said {
        hold(&said, 4096).expect("it holds");
    }
}

/// The agent checks on several threads.
#[test]
fn checks_move_between_threads() {
    fn moves(_: impl Send) {}
    let stream = || duplex(1).0;
    let expect = Step::Expect(Pattern::contains("x").expect("a pattern"));
    moves(Conversation::new(vec![expect]).expect("a conversation").check(stream()));
    moves(Redis { password: None, user: None, role: None }.check(stream()));
    moves(Postgres { user: "x".into(), database: None, role: None, password: None }.check(stream()));
    moves(MySql { user: None }.check(stream()));
}
