//! PostgreSQL, without logins by SCRAM.

use lb_probes::{
    Postgres,
    postgres::Role::{self, Primary, Standby},
};

use super::fake::{Turn, block_on, hears, outcome, play, play_in_pieces, reason, says};

pub const TERMINATE: &[u8] = b"X\0\0\0\x04";

pub fn check(role: Option<Role>, password: Option<&str>) -> Postgres {
    Postgres { user: "joe".into(), database: None, role, password: password.map(Into::into) }
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("it is short");
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// An authentication request.
pub fn request(number: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&number.to_be_bytes(), rest].concat())
}

pub fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0M{text}\0Fauth.c\0L1\0\0").as_bytes())
}

pub fn startup() -> Turn {
    hears(b"\0\0\0\x2b\0\x03\0\0user\0joe\0application_name\0flowpin\0\0")
}

/// The user is in: a parameter, the key, the end.
pub fn ready() -> Vec<u8> {
    let parameter = message(b'S', b"server_version\x0017.0\0");
    [request(0, b""), parameter, message(b'K', b"\0\0\0\x01abcd"), message(b'Z', b"I")].concat()
}

pub fn query() -> Turn {
    hears(message(b'Q', b"SELECT pg_is_in_recovery()\0"))
}

/// The answer to the query.
pub fn row(is: &[u8]) -> Vec<u8> {
    let column = b"\0\x01pg_is_in_recovery\0\0\0\0\0\0\0\0\0\0\x10\0\x01\xff\xff\xff\xff\0\0";
    let row = [b"\0\x01\0\0\0\x01", is].concat();
    let notice = message(b'N', b"SNOTICE\0\0");
    let end = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    [message(b'T', column), notice, message(b'D', &row), end].concat()
}

/// The answer to the startup message, when nobody logs in.
fn started(answer: &[u8]) -> Result<(), String> {
    outcome(&check(None, None), &[startup(), says(answer)])
}

#[test]
fn any_request_for_authentication_is_good_without_a_role() {
    for number in [2, 3, 5, 7, 9, 10, 4711] {
        assert_eq!(started(&request(number, b"SCRAM-SHA-256\0\0")), Ok(()), "{number}");
    }
}

#[test]
fn a_user_who_may_not_log_in_is_good_without_a_role() {
    assert_eq!(started(&error("FATAL", "28000", "no pg_hba.conf entry")), Ok(()));
    assert_eq!(started(&error("FATAL", "28P01", "password authentication failed")), Ok(()));
    // By trust, but there is no such database.
    let missing = [request(0, b""), error("FATAL", "3D000", "database \"joe\" does not exist")].concat();
    assert_eq!(started(&missing), Ok(()));
}

#[test]
fn a_server_that_isnt_well_says_so() {
    let down = [
        ("57P03", "the database system is starting up"),
        ("57P03", "the database system is shutting down"),
        ("57P01", "terminating connection due to administrator command"),
        ("57P02", "terminating connection because of crash of another server process"),
        ("53300", "sorry, too many clients already"),
        ("58030", "could not read file \"global/pg_filenode.map\""),
        ("XX000", "cache lookup failed"),
        ("F0000", "configuration file contains errors"),
    ];
    for (code, text) in down {
        assert_eq!(started(&error("FATAL", code, text)), Err(format!("FATAL {code}: {text}")));
        let later = [request(0, b""), error("FATAL", code, text)].concat();
        assert_eq!(started(&later), Err(format!("FATAL {code}: {text}")));
    }
    let odd = r#"answers with an error without a code, "odd"; is it PostgreSQL?"#;
    assert_eq!(started(&message(b'E', b"Modd\0\0")), Err(odd.into()));
}

#[test]
fn who_was_let_in_says_goodbye() {
    let came = play(&check(None, None), &[startup(), says(ready())]);
    assert_eq!(came, (Ok(()), TERMINATE.into()));
    // Others have nothing to end.
    let came = play(&check(None, None), &[startup(), says(request(3, b""))]);
    assert_eq!(came, (Ok(()), vec![]));
}

#[test]
fn the_database_is_named_if_there_is_one() {
    let named = Postgres { database: Some("app".into()), ..check(None, None) };
    let startup = hears(b"\0\0\0\x38\0\x03\0\0user\0joe\0database\0app\0application_name\0flowpin\0\0");
    assert_eq!(outcome(&named, &[startup, says(request(10, b"x\0\0"))]), Ok(()));
}

/// After a login by trust.
fn is(role: Role, answer: &[u8]) -> (Result<(), String>, Vec<u8>) {
    play(&check(Some(role), None), &[startup(), says(ready()), query(), says(answer)])
}

#[test]
fn a_role_is_what_the_query_says() {
    assert_eq!(is(Primary, &row(b"f")), (Ok(()), TERMINATE.into()));
    assert_eq!(is(Standby, &row(b"t")), (Ok(()), TERMINATE.into()));
    assert_eq!(is(Standby, &row(b"f")), (Err("is a primary, not a standby".into()), TERMINATE.into()));
    assert_eq!(is(Primary, &row(b"t")), (Err("is a standby, not a primary".into()), TERMINATE.into()));
}

#[test]
fn a_role_that_isnt_told_is_told() {
    let not = |answer: &[u8]| is(Primary, answer).0.expect_err("it tells no role");
    assert_eq!(not(&row(b"x")), r#"answers pg_is_in_recovery() with the row "\0\x01\0\0\0\x01x""#);
    assert_eq!(not(&message(b'Z', b"I")), "answers pg_is_in_recovery() without a row");
    assert_eq!(
        not(&error("ERROR", "42883", "function pg_is_in_recovery() does not exist")),
        "ERROR 42883: function pg_is_in_recovery() does not exist"
    );
    assert_eq!(not(&request(0, b"")), r#"answers a query with message "R""#);
    assert_eq!(not(b""), "closes without an answer");
}

/// A login by `request` for a role, with the password `sesame` or none.
fn login(password: Option<&str>, request: &[u8]) -> String {
    reason(&check(Some(Primary), password), &[startup(), says(request)])
}

#[test]
fn a_password_in_clear_text_is_sent_when_it_is_asked_for() {
    let sent = hears(b"p\0\0\0\x0bsesame\0");
    let good = [startup(), says(request(3, b"")), sent.clone(), says(ready()), query(), says(row(b"f"))];
    assert_eq!(outcome(&check(Some(Primary), Some("sesame")), &good), Ok(()));
    let refused = error("FATAL", "28P01", "password authentication failed for user \"joe\"");
    let bad = [startup(), says(request(3, b"")), sent, says(refused)];
    assert_eq!(
        reason(&check(Some(Primary), Some("sesame")), &bad),
        "FATAL 28P01: password authentication failed for user \"joe\""
    );
    assert_eq!(login(None, &request(3, b"")), r#"wants a password of "joe", and the check has none"#);
}

#[test]
fn logins_that_arent_spoken_are_named() {
    let spoken = "let the user in by scram-sha-256 or trust in pg_hba.conf";
    assert_eq!(
        login(Some("sesame"), &request(5, b"salt")),
        format!("wants the password by MD5, which checks don't speak; {spoken}")
    );
    assert_eq!(
        login(Some("sesame"), &request(7, b"")),
        format!("wants authentication 7 (Kerberos, GSS or SSPI), which checks don't speak; {spoken}")
    );
    assert_eq!(
        login(Some("sesame"), &request(10, b"OAUTHBEARER\0\0")),
        r#"wants SASL by "OAUTHBEARER\0\0"; checks speak SCRAM-SHA-256"#
    );
    assert_eq!(login(Some("sesame"), &request(11, b"r=x")), "goes on with a login by SASL that wasn't begun");
}

#[test]
fn others_are_asked_whether_they_are_postgresql() {
    let not = |answer: &[u8]| started(answer).expect_err("it is none");
    // What has come by then is shown.
    let turns = [startup(), says("-ERR unknown\r\n")];
    let (came, _) = block_on(play_in_pieces(100, &check(None, None), &turns));
    assert_eq!(came, Err(r#"answers "-ERR unknown\r\n"; is it PostgreSQL?"#.into()));
    assert_eq!(not(b"R\0\0\0\x03abc"), r#"answers "R\0\0\0\x03" (a message of 3 bytes); is it PostgreSQL?"#);
    assert_eq!(
        not(b"R\xff\0\0\0"),
        r#"answers "R\xff\0\0\0" (a message of 4278190080 bytes); is it PostgreSQL?"#
    );
    assert_eq!(not(b"R\0\0\0\x06ab"), r#"asks for authentication by "ab"; is it PostgreSQL?"#);
    assert_eq!(not(b"R\0\0\0\x08ab"), r#"closes after "ab""#);
    assert_eq!(not(&message(b'D', b"")), r#"answers a login with message "D""#);
}

#[test]
fn what_cant_be_asked_is_refused() {
    let nul = Postgres { user: "a\0b".into(), ..check(None, None) };
    assert_eq!(
        nul.validate().expect_err("a NUL").to_string(),
        "user `a\\0b` contains a NUL character, which the protocol can't carry; leave it out"
    );
    let nul = Postgres { database: Some("\0".into()), ..check(None, None) };
    assert!(nul.validate().is_err());
    let nul = check(Some(Primary), Some("ses\0me")).validate().expect_err("a NUL").to_string();
    assert!(nul.starts_with("password `***` contains"), "{nul}");
    let unused = check(None, Some("sesame")).validate().expect_err("nobody logs in").to_string();
    assert!(unused.starts_with("there is a password but no role; say which role"), "{unused}");
    assert_eq!(check(Some(Standby), Some("sesame")).validate(), Ok(()));
    let shown = format!("{:?}", check(Some(Primary), Some("sesame")));
    assert!(shown.contains("***") && !shown.contains("sesame"), "{shown}");
}
