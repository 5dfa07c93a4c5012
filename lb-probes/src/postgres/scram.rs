//! SCRAM-SHA-256, the client's side: RFC 5802, RFC 7677. Without channel binding, which takes TLS.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use crate::text::excerpt;

/// Most rounds of hashing that a check does for a server. PostgreSQL's default is 4,096; this is some 50 ms, so that
/// a backend can't have the node count for minutes.
const MOST_ROUNDS: u32 = 100_000;
/// What the client says of channel binding: that it doesn't know it ("n,,"), in base64 later.
const NO_BINDING: &str = "n,,";

/// One login.
pub struct Scram {
    nonce: String,
}

impl Scram {
    /// With a nonce of 18 bytes, as PostgreSQL's own clients have.
    pub fn begin() -> Self {
        let mut nonce = [0; 18];
        rand::rng().fill(&mut nonce);
        Self { nonce: BASE64.encode(nonce) }
    }

    /// The first message. PostgreSQL takes the user from the startup message.
    pub fn first(&self) -> String {
        format!("{NO_BINDING}{}", self.bare())
    }

    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The answer to the server's challenge, and what the server must answer to that.
    ///
    /// # Errors
    /// The challenge isn't one, or not for this login.
    pub fn answer(&self, password: &str, challenge: &[u8]) -> Result<(String, String), String> {
        let odd = || format!("challenges by SCRAM with {}", excerpt(challenge));
        let challenge = str::from_utf8(challenge).map_err(|_| odd())?;
        let mut parts = challenge.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name)).ok_or_else(odd);
        let (nonce, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
        let salt = BASE64.decode(salt).map_err(|_| odd())?;
        let rounds: u32 = rounds.parse().map_err(|_| odd())?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("challenges by SCRAM with another login's nonce".into());
        }
        if !(1..=MOST_ROUNDS).contains(&rounds) {
            return Err(format!("wants {rounds} rounds of hashing; checks do 1 to {MOST_ROUNDS}"));
        }
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, rounds);
        let client_key = hmac(&salted, b"Client Key");
        let last = format!("c={},r={nonce}", BASE64.encode(NO_BINDING));
        let all = format!("{},{challenge},{last}", self.bare());
        let signature = hmac(&Sha256::digest(client_key), all.as_bytes());
        let proof: Vec<u8> =
            client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        let server = hmac(&hmac(&salted, b"Server Key"), all.as_bytes());
        Ok((format!("{last},p={}", BASE64.encode(proof)), format!("v={}", BASE64.encode(server))))
    }
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, without the user, whom PostgreSQL takes from elsewhere. Proof and signature were
    /// computed by other means, by which the RFC's own come out with its user.
    #[test]
    fn the_exchange_of_the_rfc() {
        let scram = Scram { nonce: "rOprNGfwEbeRWgbNEkqO".into() };
        assert_eq!(scram.first(), "n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        let nonce = r"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let challenge = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let (answer, expected) = scram.answer("pencil", challenge.as_bytes()).expect("a challenge");
        assert_eq!(answer, format!("c=biws,r={nonce},p=qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k="));
        assert_eq!(expected, "v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg=");
    }

    #[test]
    fn every_login_has_a_nonce_of_its_own() {
        assert_ne!(Scram::begin().first(), Scram::begin().first());
    }
}
