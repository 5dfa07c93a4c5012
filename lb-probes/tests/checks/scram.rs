//! Logins of PostgreSQL by SCRAM-SHA-256, with a server that knows what servers keep: the stored key and its own.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac as _};
use lb_probes::postgres::Role::Primary;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::{
    fake::block_on,
    postgres::{TERMINATE, check, error, message, ready, request, row},
};

const SALT: &[u8] = b"0123456789abcdef";

/// What is wrong with the server.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    OtherNonce,
    SameNonce,
    Rounds(&'static str),
    NoText,
    Signature,
    ErrorAtOnce,
    OkInstead,
}

async fn hear(stream: &mut DuplexStream, kind: u8) -> Vec<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.expect("a message");
    assert_eq!(head[0], kind);
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await.expect("all of it");
    body
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// Lets in whoever knows `password`, but for its fault. What it hears at the end.
async fn serve(mut stream: DuplexStream, password: &str, fault: Fault) -> Vec<u8> {
    let mut startup = [0; 43];
    stream.read_exact(&mut startup).await.expect("a startup message");
    stream.write_all(&request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")).await.expect("it listens");
    let first = hear(&mut stream, b'p').await;
    let first = first.strip_prefix(b"SCRAM-SHA-256\0\0\0\0").expect("the mechanism, and a short length");
    assert_eq!(usize::from(first[0]), first.len() - 1);
    let first = String::from_utf8(first[1..].into()).expect("SCRAM is text");
    let bare = first.strip_prefix("n,,").expect("no channel binding");
    let nonce = bare.strip_prefix("n=,r=").expect("no user: the startup message had it");
    assert!(nonce.len() >= 24, "{nonce}");
    let nonce = match fault {
        Fault::OtherNonce => "somebody else's".into(),
        Fault::SameNonce => nonce.to_owned(),
        _ => format!("{nonce}server"),
    };
    let rounds = if let Fault::Rounds(rounds) = fault { rounds } else { "4096" };
    let challenge = format!("r={nonce},s={},i={rounds}", BASE64.encode(SALT));
    stream
        .write_all(&match fault {
            Fault::ErrorAtOnce => error("FATAL", "57P03", "the database system is shutting down"),
            Fault::NoText => request(11, b"\xff"),
            Fault::OkInstead => ready(),
            _ => request(11, challenge.as_bytes()),
        })
        .await
        .expect("it listens");
    if !matches!(fault, Fault::None | Fault::Signature) {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("it ends");
        return rest;
    }
    let last = String::from_utf8(hear(&mut stream, b'p').await).expect("SCRAM is text");
    let (unproven, proof) = last.rsplit_once(",p=").expect("a proof");
    assert_eq!(unproven, format!("c=biws,r={nonce}"));
    let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), SALT, 4096);
    let stored = Sha256::digest(hmac(&salted, b"Client Key"));
    let all = format!("{bare},{challenge},{unproven}");
    let signature = hmac(&stored, all.as_bytes());
    let proof = BASE64.decode(proof).expect("base64");
    let key: Vec<u8> = proof.iter().zip(&signature).map(|(proof, signature)| proof ^ signature).collect();
    if Sha256::digest(&key) != stored {
        let refused = error("FATAL", "28P01", "password authentication failed for user \"joe\"");
        stream.write_all(&refused).await.expect("it listens");
        return Vec::new();
    }
    let mut signature = hmac(&hmac(&salted, b"Server Key"), all.as_bytes());
    if fault == Fault::Signature {
        signature[0] ^= 1;
    }
    let end = request(12, format!("v={}", BASE64.encode(signature)).as_bytes());
    stream.write_all(&[end, ready()].concat()).await.expect("it listens");
    if fault == Fault::None {
        assert_eq!(hear(&mut stream, b'Q').await, b"SELECT pg_is_in_recovery()\0");
        stream.write_all(&row(b"f")).await.expect("it listens");
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("it ends");
    rest
}

fn log_in(size: usize, password: &str, fault: Fault) -> (Result<(), String>, Vec<u8>) {
    let check = check(Some(Primary), Some(password));
    block_on(async {
        let (near, far) = duplex(size);
        tokio::join!(check.check(near), serve(far, "sesame", fault))
    })
}

#[test]
fn the_right_password_is_let_in_and_says_goodbye() {
    for size in [1, 2, 7, 64, 1 << 16] {
        assert_eq!(log_in(size, "sesame", Fault::None), (Ok(()), TERMINATE.into()));
    }
}

#[test]
fn a_wrong_password_is_told_as_the_server_does() {
    let why = "FATAL 28P01: password authentication failed for user \"joe\"";
    assert_eq!(log_in(1 << 16, "simsim", Fault::None).0, Err(why.into()));
}

#[test]
fn a_server_that_doesnt_know_the_password_isnt_believed() {
    let why = "doesn't know the password itself: is it the right server?";
    assert_eq!(log_in(1 << 16, "sesame", Fault::Signature), (Err(why.into()), vec![]));
}

#[test]
fn odd_challenges_are_refused() {
    let why = |fault| log_in(1 << 16, "sesame", fault).0.expect_err("it isn't let in");
    let nonce = "challenges by SCRAM with another login's nonce";
    assert_eq!(why(Fault::OtherNonce), nonce);
    assert_eq!(why(Fault::SameNonce), nonce);
    assert_eq!(why(Fault::Rounds("0")), "wants 0 rounds of hashing; checks do 1 to 100000");
    assert_eq!(why(Fault::Rounds("100001")), "wants 100001 rounds of hashing; checks do 1 to 100000");
    assert!(why(Fault::Rounds("many")).starts_with("challenges by SCRAM with \"r="));
    assert_eq!(why(Fault::NoText), r#"challenges by SCRAM with "\xff""#);
    assert_eq!(why(Fault::ErrorAtOnce), "FATAL 57P03: the database system is shutting down");
    // Whoever lets in without a proof hasn't proven either that it knows the password.
    assert_eq!(why(Fault::OkInstead), r#"breaks off the login by SCRAM-SHA-256 with "\0\0\0\0""#);
}

#[test]
fn no_password_is_told() {
    let turns = [super::postgres::startup(), super::fake::says(request(10, b"SCRAM-SHA-256\0\0"))];
    assert_eq!(
        super::fake::reason(&check(Some(Primary), None), &turns),
        r#"wants a password of "joe", and the check has none"#
    );
    assert_eq!(message(b'X', b""), TERMINATE);
}
