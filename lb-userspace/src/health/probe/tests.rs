use lb_probes::{Conversation, MySql, Pattern, Redis, Step, redis::Role};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

fn spec(probe: Probe) -> HealthSpec {
    HealthSpec {
        probe,
        port: None,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        rise: 1,
        fall: 1,
        passive: false,
        panic: 0,
    }
}

/// A server that answers what comes with these, one after the other, and then is silent.
async fn server(answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    #[expect(clippy::disallowed_methods, reason = "the test fails if it panics")]
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a check");
        for answer in answers {
            let some = stream.read(&mut [0; 1024]).await.expect("a question");
            assert!(some > 0, "it is asked");
            stream.write_all(answer.as_bytes()).await.expect("it is taken");
        }
        let _ = stream.read(&mut [0; 1024]).await;
    });
    address
}

fn redis(role: Role) -> Probe {
    Probe::Redis(Redis { password: None, user: None, role: Some(role) })
}

#[tokio::test]
async fn a_content_check_sees_what_a_server_is() {
    const REPLICA: &[&str] = &["+PONG\r\n", "$12\r\nrole:slave\r\n\r\n"];
    assert_eq!(check(&spec(redis(Role::Replica)), "s", server(REPLICA).await).await, Ok(()));
    let why = check(&spec(redis(Role::Master)), "s", server(REPLICA).await).await;
    assert_eq!(why, Err(Failure::There("is a replica, not a master".into())));
}

#[tokio::test]
async fn what_came_is_told_when_the_time_is_over() {
    let steps =
        vec![Step::Send(b"role?".into()), Step::Expect(Pattern::contains("master").expect("it is one"))];
    let talk = Probe::Talk(Conversation::new(steps).expect("it is one"));
    let began = Instant::now();
    let why = check(&spec(talk), "s", server(&["slave\r\n"]).await).await;
    let words = r#"answers "slave\r\n", then: no answer within 2s; "master" was expected"#;
    assert_eq!(why, Err(Failure::There(words.into())));
    assert!(began.elapsed() >= Duration::from_millis(300));
    // MySQL speaks first; this one waits to be spoken to.
    let why = check(&spec(Probe::MySql(MySql { user: None })), "s", server(&[]).await).await;
    assert_eq!(why, Err(Failure::There("no answer within 2s".into())));
}

#[tokio::test]
async fn who_refuses_connections_isn_t_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let why = check(&spec(redis(Role::Master)), "s", address).await;
    assert!(matches!(&why, Err(Failure::There(why)) if why.contains("refused")), "{why:?}");
}

/// A server that answers every request with a status by its path, one connection after the other. Paths it hasn't
/// heard of are met with silence.
async fn pages(statuses: &'static [(&'static str, u16)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    #[expect(clippy::disallowed_methods, reason = "the test fails if it panics")]
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.expect("a check");
            let mut asked = [0; 1024];
            let count = stream.read(&mut asked).await.expect("a question");
            let asked = String::from_utf8_lossy(&asked[..count]).into_owned();
            let page =
                statuses.iter().find(|(path, _)| asked.starts_with(&format!("GET {path} HTTP/1.1\r\n")));
            match page {
                Some((_, status)) => {
                    let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.expect("it is taken");
                }
                None => silent.push(stream),
            }
        }
    });
    address
}

#[tokio::test]
async fn each_of_several_paths_must_be_answered_well_and_the_one_that_isn_t_is_named() {
    let to = pages(&[("/a", 200), ("/b", 204), ("/c", 503)]).await;
    let http = |paths: &[&str]| Probe::Http {
        tls: false,
        paths: paths.iter().map(ToString::to_string).collect(),
        host: None,
        expect: vec![200..=299],
    };
    for (paths, wanted) in [
        (&["/a", "/b"][..], None),
        (&["/a", "/c", "/b"], Some("/c: status 503 instead of 200-299")),
        (&["/c"], Some("status 503 instead of 200-299")),
        (&["/b", "/none"], Some("/none: no answer within 2s")),
    ] {
        let why = check(&spec(http(paths)), "s", to).await;
        assert_eq!(why, wanted.map_or(Ok(()), |why| Err(Failure::There(why.into()))), "{paths:?}");
    }
}
