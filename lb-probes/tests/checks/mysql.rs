//! MySQL and MariaDB.

use lb_probes::MySql;

use super::fake::{Played, Turn, hears, outcome, play, says};

const QUIT: &[u8] = b"\x01\0\0\0\x01";

fn check(user: Option<&str>) -> MySql {
    MySql { user: user.map(Into::into) }
}

fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("it is short").to_le_bytes();
    [&length[..3], &[number], body].concat()
}

fn greeting() -> Turn {
    let before = b"\x0a8.4.3\0\x07\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15";
    let body = [&before[..], &[0; 10], b"123456789012\0caching_sha2_password\0"].concat();
    says(packet(0, &body))
}

fn login(user: &str) -> Turn {
    let fixed = [&[1, 0x82, 8, 0, 0, 0, 0, 1, 33][..], &[0; 23]].concat();
    hears(packet(1, &[&fixed[..], user.as_bytes(), b"\0\0mysql_native_password\0"].concat()))
}

fn ok(number: u8) -> Turn {
    says(packet(number, b"\0\0\0\x02\0\0\0"))
}

fn error(number: u8, code: u16, text: &str) -> Turn {
    says(packet(number, &[&[0xff], &code.to_le_bytes()[..], text.as_bytes()].concat()))
}

fn denied(number: u8) -> Turn {
    error(number, 1045, "#28000Access denied for user 'joe'@'10.0.0.1' (using password: NO)")
}

/// The first thing that it says.
fn greets(turn: Turn) -> String {
    let one = outcome(&check(None), std::slice::from_ref(&turn)).expect_err("it isn't well");
    assert_eq!(outcome(&check(Some("joe")), &[turn]), Err(one.clone()));
    one
}

#[test]
fn a_user_who_is_let_in_says_goodbye() {
    let came = play(&check(Some("joe")), &[greeting(), login("joe"), ok(2)]);
    assert_eq!(came, (Ok(()), QUIT.into()));
}

#[test]
fn a_user_who_isnt_let_in_is_told() {
    let why = "error 1045 (28000): Access denied for user 'joe'@'10.0.0.1' (using password: NO)";
    let came = play(&check(Some("joe")), &[greeting(), login("joe"), denied(2)]);
    assert_eq!(came, (Err(why.into()), vec![]));
}

#[test]
fn without_a_user_a_refused_login_is_good() {
    assert_eq!(play(&check(None), &[greeting(), login("flowpin"), denied(2)]), (Ok(()), vec![]));
    assert_eq!(play(&check(None), &[greeting(), login("flowpin"), ok(2)]), (Ok(()), QUIT.into()));
    // But not one that tells of the server.
    let full = error(2, 1040, "#08004Too many connections");
    let why = "error 1040 (08004): Too many connections";
    assert_eq!(outcome(&check(None), &[greeting(), login("flowpin"), full]), Err(why.into()));
}

#[test]
fn an_error_instead_of_a_greeting_is_told() {
    assert_eq!(greets(error(0, 1040, "Too many connections")), "error 1040: Too many connections");
    assert_eq!(
        greets(error(0, 1129, "Host '10.0.0.1' is blocked because of many connection errors")),
        "error 1129: Host '10.0.0.1' is blocked because of many connection errors"
    );
    assert_eq!(
        greets(error(0, 1130, "Host '10.0.0.1' is not allowed to connect to this MySQL server")),
        "error 1130: Host '10.0.0.1' is not allowed to connect to this MySQL server"
    );
    assert_eq!(greets(error(0, 1053, "#08S01Bye")), "error 1053 (08S01): Bye");
    assert_eq!(greets(error(0, 1053, "#08")), "error 1053: #08");
    assert_eq!(
        greets(says(packet(0, b"\xff\x01"))),
        r#"answers with an error without a number, "\x01"; is it MySQL?"#
    );
}

/// The login is to go on by another method.
fn switched(method: &[u8], reply: &[u8], then: Turn) -> Played {
    let wanted = says(packet(2, &[b"\xfe", method, b"\x0012345678901234567890\0"].concat()));
    play(&check(Some("joe")), &[greeting(), login("joe"), wanted, hears(packet(3, reply)), then])
}

#[test]
fn no_password_is_said_by_any_method() {
    let good = (Ok(()), QUIT.to_vec());
    assert_eq!(switched(b"caching_sha2_password", b"\0", ok(4)), good);
    assert_eq!(switched(b"sha256_password", b"\0", ok(4)), good);
    assert_eq!(switched(b"mysql_native_password", b"", ok(4)), good);
    assert!(switched(b"client_ed25519", b"", denied(4)).0.is_err());
    let more = says(packet(4, b"\x01\x04"));
    assert_eq!(
        switched(b"caching_sha2_password", b"\0", more).0,
        Err(r#"answers the login with "\x01\x04""#.into())
    );
}

#[test]
fn others_are_asked_whether_they_are_mysql() {
    assert_eq!(
        greets(says("SSH-2.0-OpenSSH_9.2\r\n")),
        r#"answers "SSH-" (a packet of 4739923 bytes); is it MySQL?"#
    );
    assert_eq!(greets(says(b"\0\0\0\0")), r#"answers "\0\0\0\0" (a packet of 0 bytes); is it MySQL?"#);
    assert_eq!(greets(says(packet(0, b"\x0a8.4.3"))), r#"greets with "\n8.4.3"; is it MySQL?"#);
    assert_eq!(greets(says(packet(0, b"\x093.23\0"))), "speaks protocol 9, of before MySQL 4.1");
    assert_eq!(greets(says(b"\x10\0\0\0\x0a8.4")), r#"closes after "\n8.4""#);
    assert_eq!(greets(says("")), "closes without an answer");
}

#[test]
fn a_user_with_a_nul_is_refused() {
    let error = check(Some("j\0e")).validate().expect_err("a NUL").to_string();
    assert_eq!(error, "user `j\\0e` contains a NUL character, which the protocol can't carry; leave it out");
    assert_eq!(check(Some("joe")).validate(), Ok(()));
}
