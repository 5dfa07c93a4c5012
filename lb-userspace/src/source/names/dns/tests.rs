use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use hickory_resolver::{
    config::{ConnectionConfig, NameServerConfig, ResolveHosts},
    proto::{
        op::{Message, MessageType},
        rr::{
            Record, RecordType,
            rdata::{A, AAAA, CNAME},
        },
    },
};
use tokio::net::UdpSocket;

use super::*;

/// What the server answers to everything at the moment.
const ADDRESSES: u8 = 0;
const NO_NAME: u8 = 1;
const TROUBLE: u8 = 2;
const SILENCE: u8 = 3;
/// Only of names in `corp.example` are there any.
const WILDCARD: u8 = 4;

/// A DNS server that knows one name, by way of another.
async fn serve(socket: UdpSocket, mode: Arc<AtomicU8>) {
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.expect("a query");
        let query = Message::from_vec(&buffer[..length]).expect("a DNS message");
        let mut answer = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
        let asked = query.queries[0].clone();
        answer.add_query(asked.clone());
        match mode.load(Ordering::SeqCst) {
            SILENCE => continue,
            NO_NAME => answer.metadata.response_code = ResponseCode::NXDomain,
            WILDCARD if asked.name().to_ascii() == "trouble.example.com." => {
                answer.metadata.response_code = ResponseCode::ServFail;
            }
            WILDCARD if !asked.name().to_ascii().ends_with(".corp.example.") => {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            TROUBLE => answer.metadata.response_code = ResponseCode::ServFail,
            _ if asked.query_type() == RecordType::A => {
                let real = Name::from_ascii("pool.example.com.").expect("a name");
                let alias = RData::CNAME(CNAME(real.clone()));
                answer.add_answer(Record::from_rdata(asked.name().clone(), 20, alias));
                for n in [1, 2] {
                    let a = RData::A(A::new(10, 0, 0, n));
                    answer.add_answer(Record::from_rdata(real.clone(), 60, a));
                }
            }
            _ if asked.name().to_ascii().starts_with("both") => {
                let aaaa = RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
                answer.add_answer(Record::from_rdata(asked.name().clone(), 90, aaaa));
            }
            _ => {}
        }
        socket.send_to(&answer.to_vec().expect("bytes"), from).await.expect("it is sent");
    }
}

fn asker(server: SocketAddr, search: &[&str]) -> Asker {
    let mut udp = ConnectionConfig::udp();
    udp.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![udp]);
    let search = search.iter().map(|domain| Name::from_ascii(domain).expect("a name")).collect();
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    (options.timeout, options.attempts) = (Duration::from_millis(200), 1);
    Asker::new(ResolverConfig::from_parts(None, search, vec![server]), options).expect("a resolver")
}

fn found(list: &[&str], ttl: u64) -> Option<Answer> {
    let addresses = list.iter().map(|address| address.parse().expect("an address")).collect();
    Some(Answer::Found { addresses, ttl: Duration::from_secs(ttl) })
}

#[tokio::test]
async fn what_a_server_says() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let (server, mode) = (socket.local_addr().expect("bound"), Arc::new(AtomicU8::new(ADDRESSES)));
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(serve(socket, mode.clone()));
    let v4 = found(&["10.0.0.1", "10.0.0.2"], 20);
    // A resolver for each look-up, as the agent has it.
    let look = async |host, wanted| asker(server, &[]).ask(host, wanted).await;
    assert_eq!(look("both.example.com", [true, true]).await, [v4.clone(), found(&["fd00::1"], 90)]);
    let without = Some(Answer::None("the name has no such records".into()));
    assert_eq!(look("db.example.com", [true, true]).await, [v4.clone(), without]);
    assert_eq!(look("db.example.com", [true, false]).await, [v4, None]);
    for (said, wanted) in [
        (NO_NAME, Answer::None("there is no such name (NXDOMAIN)".into())),
        (TROUBLE, Answer::Failed("the DNS server says Server Failure".into())),
        (SILENCE, Answer::Failed(NO_ANSWER.into())),
    ] {
        mode.store(said, Ordering::SeqCst);
        assert_eq!(look("db.example.com", [true, false]).await, [Some(wanted), None]);
    }
}

#[tokio::test]
async fn another_name_is_asked_for_only_where_there_is_none() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let (server, mode) = (socket.local_addr().expect("bound"), Arc::new(AtomicU8::new(WILDCARD)));
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(serve(socket, mode));
    let asker = asker(server, &["corp.example."]);
    let names = |host| asker.meant(host).iter().map(Name::to_ascii).collect::<Vec<_>>();
    assert_eq!(names("db.example.com"), ["db.example.com.", "db.example.com.corp.example."]);
    assert_eq!(names("db"), ["db.corp.example.", "db."]);
    assert_eq!(names("db.example.com."), ["db.example.com."]);
    assert_eq!(names("db."), ["db."]);
    // There is no such name: another may be meant, whose addresses are those of both IP versions.
    let [v4, v6] = asker.ask("none.example.com", [true, true]).await;
    assert_eq!(
        (v4, v6),
        (found(&["10.0.0.1", "10.0.0.2"], 20), Some(Answer::None("the name has no such records".into())))
    );
    // Of this one the server says that it has failed: whose addresses another name has is no answer.
    let [v4, _] = asker.ask("trouble.example.com", [true, true]).await;
    assert_eq!(v4, Some(Answer::Failed("the DNS server says Server Failure".into())));
}
