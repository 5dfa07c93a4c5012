//! Conversations of the operator's own.

use std::time::Duration;

use lb_probes::{Conversation, Invalid, MOST_READ, Pattern, Step, Until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    time::Instant,
};

use super::fake::{block_on, hears, outcome, play_in_pieces, reason, says};

fn send(text: &str) -> Step {
    Step::Send(lb_probes::unescape(text).expect("escapes that mean something"))
}

fn contains(text: &str) -> Step {
    Step::Expect(Pattern::contains(text).expect("a pattern"))
}

fn matches(text: &str) -> Step {
    Step::Expect(Pattern::matches(text).expect("a pattern"))
}

fn conversation<const N: usize>(steps: [Step; N]) -> Conversation {
    Conversation::new(steps.into()).expect("a conversation")
}

#[test]
fn what_is_expected_comes_after_what_is_sent() {
    let smtp = conversation([matches(r"^220 .*\r\n$"), send(r"QUIT\r\n"), contains("221 ")]);
    let turns = [says("220 mail ready\r\n"), hears("QUIT\r\n"), says("221 bye\r\n")];
    assert_eq!(outcome(&smtp, &turns), Ok(()));
}

#[test]
fn several_patterns_look_at_one_answer_in_any_order() {
    let both = conversation([send("?"), contains("later"), contains("sooner")]);
    assert_eq!(outcome(&both, &[hears("?"), says("sooner, later")]), Ok(()));
}

#[test]
fn an_answer_counts_only_for_what_was_sent_before_it() {
    let twice = conversation([send("1"), contains("ok"), send("2"), contains("ok")]);
    let why = reason(&twice, &[hears("1"), says("ok"), hears("2")]);
    assert_eq!(why, r#"closes without an answer; "ok" was expected"#);
}

#[test]
fn bytes_that_are_no_text_are_found_and_told() {
    let binary = conversation([send(r"\x01\xff"), contains(r"\0\xfe"), matches(r"(?-u)\xfd$")]);
    assert_eq!(outcome(&binary, &[hears(b"\x01\xff"), says(b"..\0\xfe\xfd")]), Ok(()));
    let why = reason(&binary, &[hears(b"\x01\xff"), says(b"\x1b[2J\0\xfe\n")]);
    assert_eq!(why, r#"closes after "\x1b[2J\0\xfe\n"; /(?-u)\\xfd$/ was expected"#);
}

#[test]
fn a_long_answer_is_told_in_short_and_read_in_bounds() {
    let check = conversation([contains("never")]);
    let long = "x".repeat(MOST_READ + 1);
    let (outcome, _) = block_on(play_in_pieces(1 << 20, &check, &[says(&long)]));
    assert_eq!(outcome, Err(r#"answers more than 16 KiB; "never" was expected"#.into()));
    // What is found within the bounds is good, up to the last byte.
    let fits = format!("{}never", "x".repeat(MOST_READ - 5));
    let (outcome, _) = block_on(play_in_pieces(1 << 20, &check, &[says(fits)]));
    assert_eq!(outcome, Ok(()));
    let why = reason(&check, &[says("y".repeat(200))]);
    assert_eq!(why, format!("closes after \"{}...\" (200 bytes); \"never\" was expected", "y".repeat(120)));
}

#[test]
fn a_backend_that_takes_nothing_is_told_with_its_last_words() {
    let check = conversation([send("PING"), contains("PONG")]);
    let (near, mut far) = duplex(100);
    let why = block_on(async {
        far.write_all(b"-DENIED protected mode").await.expect("there is room");
        drop(far);
        check.check(near).await
    });
    let expected = "takes nothing: broken pipe; it had answered \"-DENIED protected mode\"";
    assert_eq!(why, Err(expected.into()));
}

#[test]
fn a_check_whose_time_is_over_says_what_came() {
    let check = conversation([send("INFO"), contains("role:master")]);
    let wait = |said: &'static str| {
        block_on(async {
            let (near, mut far) = duplex(100);
            far.write_all(said.as_bytes()).await.expect("there is room");
            let deadline = Instant::now() + Duration::from_secs(1);
            let outcome = check.check(Until::new(near, deadline, "no answer within 1s".into())).await;
            assert_eq!(Instant::now().duration_since(deadline).as_millis(), 0);
            let mut heard = String::new();
            far.read_to_string(&mut heard).await.expect("it was text");
            assert_eq!(heard, "INFO");
            outcome.expect_err("nothing more comes")
        })
    };
    assert_eq!(
        wait("role:slave"),
        r#"answers "role:slave", then: no answer within 1s; "role:master" was expected"#
    );
    assert_eq!(wait(""), r#"no answer within 1s; "role:master" was expected"#);
}

#[test]
fn a_backend_that_is_in_time_meets_no_deadline() {
    let check = conversation([send("INFO"), contains("master")]);
    let outcome = block_on(async {
        let (near, mut far) = duplex(100);
        let fake = async {
            tokio::time::sleep(Duration::from_millis(999)).await;
            far.write_all(b"master").await.expect("the check listens");
        };
        let deadline = Instant::now() + Duration::from_secs(1);
        tokio::join!(check.check(Until::new(near, deadline, "too late".into())), fake).0
    });
    assert_eq!(outcome, Ok(()));
}

#[test]
fn what_could_never_fail_is_refused() {
    assert_eq!(Pattern::contains(""), Err(Invalid::AlwaysMatches(String::new())));
    assert_eq!(Pattern::matches(".*"), Err(Invalid::AlwaysMatches(".*".into())));
    assert_eq!(Conversation::new(vec![send("PING")]), Err(Invalid::ExpectsNothing));
    assert_eq!(Conversation::new(vec![Step::Send(vec![]), contains("x")]), Err(Invalid::SendsNothing));
}

#[test]
fn a_bad_expression_is_told_in_a_line_with_the_remedy() {
    let error = Pattern::matches("role:(").expect_err("it is open").to_string();
    assert_eq!(
        error,
        "`role:(` is not a regular expression: unclosed group; see https://docs.rs/regex for what can be written"
    );
    let error = Pattern::matches("(?:x{1000}){1000}").expect_err("it is too big").to_string();
    assert!(!error.contains('\n') && error.contains("size limit"), "{error}");
}

#[test]
fn conversations_are_the_same_if_they_are_written_the_same() {
    let written = || conversation([send("a"), contains("b"), matches("c")]);
    assert_eq!(written(), written());
    assert_ne!(written(), conversation([send("a"), contains("b"), matches("d")]));
    assert_ne!(conversation([contains("b")]), conversation([matches("b")]));
    assert_eq!(written().steps().len(), 3);
}
