//! Redis.

use lb_probes::{
    Redis,
    redis::Role::{Master, Replica},
};

use super::fake::{Turn, hears, outcome, reason, says};

const PING: &str = "*1\r\n$4\r\nPING\r\n";
const INFO: &str = "*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
const PLAIN: Redis = Redis { password: None, user: None, role: None };

fn replication(lines: &str) -> String {
    format!("${}\r\n{lines}\r\n", lines.len())
}

fn pinged() -> [Turn; 2] {
    [hears(PING), says("+PONG\r\n")]
}

/// PING was answered by this.
fn ping(answer: &str) -> String {
    reason(&PLAIN, &[hears(PING), says(answer)])
}

/// INFO was answered by this.
fn info(role: lb_probes::redis::Role, answer: &str) -> Result<(), String> {
    let [ping, pong] = pinged();
    outcome(&Redis { role: Some(role), ..PLAIN }, &[ping, pong, hears(INFO), says(answer)])
}

#[test]
fn pong_is_good() {
    assert_eq!(outcome(&PLAIN, &pinged()), Ok(()));
}

#[test]
fn errors_say_what_is_the_matter() {
    assert_eq!(
        ping("-NOAUTH Authentication required.\r\n"),
        "wants a password, and the check has none: NOAUTH Authentication required."
    );
    assert_eq!(
        ping("-LOADING Redis is loading the dataset in memory\r\n"),
        "is loading its data: LOADING Redis is loading the dataset in memory"
    );
    assert_eq!(ping("-MASTERDOWN Link is down\r\n"), "has lost its master: MASTERDOWN Link is down");
    assert_eq!(
        ping("-ERR max number of clients reached\r\n"),
        "refuses PING: ERR max number of clients reached"
    );
}

#[test]
fn others_are_asked_whether_they_are_redis() {
    assert_eq!(
        ping("HTTP/1.1 400 Bad Request\r\n"),
        r#"answers PING with "HTTP/1.1 400 Bad Request"; is it Redis?"#
    );
    assert_eq!(ping("+PO"), r#"closes after "+PO""#);
    assert_eq!(ping(""), "closes without an answer");
}

#[test]
fn a_password_comes_first_with_or_without_a_user() {
    let [ping, pong] = pinged();
    let with = Redis { password: Some("p w\r\n".into()), ..PLAIN };
    let turns = [hears("*2\r\n$4\r\nAUTH\r\n$5\r\np w\r\n\r\n"), says("+OK\r\n"), ping.clone(), pong.clone()];
    assert_eq!(outcome(&with, &turns), Ok(()));
    let with = Redis { user: Some("probe".into()), password: Some("é".into()), ..PLAIN };
    let auth = hears("*3\r\n$4\r\nAUTH\r\n$5\r\nprobe\r\n$2\r\né\r\n");
    assert_eq!(outcome(&with, &[auth.clone(), says("+OK\r\n"), ping, pong]), Ok(()));
    let refused = [auth, says("-WRONGPASS invalid username-password pair or user is disabled.\r\n")];
    assert_eq!(
        reason(&with, &refused),
        "refuses AUTH: WRONGPASS invalid username-password pair or user is disabled."
    );
}

#[test]
fn a_password_is_not_told_by_who_repeats_it() {
    let with = Redis { password: Some("s3cret".into()), ..PLAIN };
    let auth = hears("*2\r\n$4\r\nAUTH\r\n$6\r\ns3cret\r\n");
    let refused = [auth, says("-ERR unknown command 'AUTH', with args beginning with: 's3cret'\r\n")];
    assert_eq!(
        reason(&with, &refused),
        "refuses AUTH: ERR unknown command 'AUTH', with args beginning with: '***'"
    );
}

#[test]
fn a_role_is_what_info_says() {
    let master = replication("# Replication\r\nrole:master\r\nconnected_slaves:0\r\n");
    let slave = replication("# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\n");
    assert_eq!(info(Master, &master), Ok(()));
    assert_eq!(info(Replica, &slave), Ok(()));
    assert_eq!(info(Replica, &master), Err("is a master, not a replica".into()));
    assert_eq!(info(Master, &slave), Err("is a replica, not a master".into()));
    assert_eq!(info(Master, &replication("role:sentinel\r\n")), Err(r#"is "sentinel", not a master"#.into()));
}

#[test]
fn a_role_that_isnt_told_is_told() {
    let without = "answers INFO replication without a role; is it Redis?";
    assert_eq!(info(Master, &replication("# Replication\r\n")), Err(without.into()));
    assert_eq!(info(Master, "$0\r\n\r\n"), Err(without.into()));
    assert_eq!(
        info(Master, "-NOPERM no permissions to run the 'info' command\r\n"),
        Err("refuses INFO replication: NOPERM no permissions to run the 'info' command".into())
    );
    assert_eq!(info(Master, "$-1\r\n"), Err(r#"answers INFO replication with "$-1"; is it Redis?"#.into()));
    assert_eq!(info(Master, "$99999999999\r\nrole:"), Err(r#"closes after "role:""#.into()));
    // The role of something that comes after the answer isn't the answer's.
    assert_eq!(info(Master, "$3\r\nabc\r\nrole:master\r\n"), Err(without.into()));
}

#[test]
fn a_user_needs_a_password() {
    let lonely = Redis { user: Some("joe".into()), ..PLAIN };
    assert_eq!(
        lonely.validate().expect_err("no password").to_string(),
        "there is a user but no password; add the user's password, or leave the user out"
    );
    assert_eq!(Redis { password: Some("x".into()), ..lonely }.validate(), Ok(()));
}

#[test]
fn passwords_arent_shown() {
    let shown = format!("{:?}", Redis { password: Some("sesame".into()), ..PLAIN });
    assert!(shown.contains("***") && !shown.contains("sesame"), "{shown}");
}
