use proptest::prelude::*;

use super::*;

fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn service() -> impl Strategy<Value = ServiceKey> {
    any::<u64>().prop_map(ServiceKey)
}

fn owns() -> impl Strategy<Value = Vec<Own>> {
    let own = (any::<u64>(), any::<u32>());
    prop::collection::vec(own.prop_map(|(key, open)| Own { backend: BackendKey(key), open }), 0..40)
}

fn totals() -> impl Strategy<Value = Vec<Total>> {
    let total = (any::<u64>(), any::<u64>());
    prop::collection::vec(total.prop_map(|(key, open)| Total { backend: BackendKey(key), open }), 0..40)
}

fn acks() -> impl Strategy<Value = Vec<Ack>> {
    let ack = (node(), any::<u64>(), any::<u64>());
    prop::collection::vec(ack.prop_map(|(node, epoch, seq)| Ack { node, epoch, seq }), 0..40)
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        ("[a-z.-]{1,253}", "[a-z.-]{1,253}", any::<u64>())
            .prop_map(|(node, cluster, epoch)| Frame::Hello(Hello { node, cluster, epoch })),
        (node(), service()).prop_map(|(node, service)| Frame::Subscribe(Subscribe { node, service })),
        (node(), service(), any::<[u64; 3]>(), any::<u32>(), owns()).prop_map(
            |(node, service, [epoch, seq, base], pool, counts)| {
                Frame::Report(Report { node, service, epoch, seq, base, pool, counts })
            }
        ),
        (node(), service(), any::<[u64; 2]>(), any::<[bool; 2]>(), 0f32..1e9, any::<u32>(), totals(), acks())
            .prop_map(|(owner, service, [epoch, seq], [whole, settling], rate, gap, counts, acks)| {
                let totals = Totals { owner, epoch, service, seq, whole, settling, rate, gap, counts, acks };
                Frame::Totals(totals)
            }),
        (node(), service()).prop_map(|(from, service)| Frame::Ask(Ask { from, service })),
        (node(), service(), any::<[u64; 2]>())
            .prop_map(|(node, service, [epoch, seq])| Frame::Leave(Leave { node, service, epoch, seq })),
        (any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(
            |(number, asks, body)| {
                let talk = Talk { number, body };
                if asks { Frame::Question(talk) } else { Frame::Answer(talk) }
            }
        ),
        (node(), any::<u64>(), prop::option::of((node(), any::<u64>()))).prop_map(
            |(owner, epoch, greeting)| {
                let greeting = greeting.map(|(node, met)| Greeting { node, met });
                Frame::Alive(Alive { owner, epoch, greeting })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frame in frame()) {
        prop_assert_eq!(Frame::decode(&frame.encode().unwrap()), Ok(frame));
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..300), versioned: bool) {
        if versioned && !bytes.is_empty() {
            bytes[0] = VERSION;
        }
        // What is read is one that can be said.
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert!(frame.encode().is_ok());
        }
    }

    #[test]
    fn a_frame_that_is_torn_or_changed_is_one_or_an_error(
        frame in frame(),
        cut: prop::sample::Index,
        at: prop::sample::Index,
        to: u8,
    ) {
        let mut bytes = frame.encode().unwrap();
        prop_assert!(Frame::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert!(frame.encode().is_ok());
        }
    }
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let alive = Frame::Alive(Alive { owner: NodeId(1), epoch: 7, greeting: None }).encode().unwrap();
    let hello = |name: &str| Frame::Hello(Hello { node: name.into(), cluster: "c".into(), epoch: 1 });
    let said = |frame: Result<Frame, FrameError>| frame.unwrap_err().to_string();
    assert_eq!(
        said(Frame::decode(&vec![VERSION; MAX_FRAME + 1])),
        "a frame of 1048577 bytes: the limit is 1048576; is the other end Flowpin's?"
    );
    assert_eq!(said(Frame::decode(&[])), "an empty frame");
    assert_eq!(
        said(Frame::decode(&[&[2], &alive[1..]].concat())),
        "a frame of version 2: this is version 1; run the same version of Flowpin on all nodes"
    );
    assert_eq!(said(Frame::decode(&[alive.as_slice(), &[0, 0]].concat())), "a frame with 2 bytes too many");
    assert_eq!(
        hello(&"n".repeat(254)).encode().unwrap_err().to_string(),
        "a node's name of 254 bytes: names have 1 to 253"
    );
    assert!(hello(&"n".repeat(253)).encode().is_ok());
    let question = |length| Frame::Question(Talk { number: 1, body: vec![0; length] }).encode();
    assert!(question(MAX_TALK).is_ok());
    assert_eq!(
        question(MAX_TALK + 1).unwrap_err().to_string(),
        "a question or answer of 524289 bytes: they have at most 524288"
    );
}

#[test]
fn the_largest_service_fits_with_many_nodes() {
    let counts = vec![Total { backend: BackendKey(u64::MAX), open: u64::MAX }; MAX_BACKENDS];
    let acks = vec![Ack { node: NodeId(u64::MAX), epoch: 1 << 55, seq: 1 << 40 }; 30_000];
    let totals = |counts, acks| {
        Frame::Totals(Totals {
            owner: NodeId(1),
            epoch: 1,
            service: ServiceKey(1),
            seq: 1,
            whole: true,
            settling: false,
            rate: 1.0,
            gap: 2_000,
            counts,
            acks,
        })
    };
    assert!(totals(counts.clone(), acks).encode().is_ok());
    let more = [counts, vec![Total { backend: BackendKey(0), open: 0 }]].concat();
    assert_eq!(totals(more, vec![]).encode(), Err(FrameError::Backends(MAX_BACKENDS + 1)));
}

/// Other versions of the program read these bytes.
#[test]
fn bytes_of_a_report() {
    let counts = vec![Own { backend: BackendKey(0x0807_0605_0403_0201), open: 300 }];
    let report =
        Report { node: NodeId(2), service: ServiceKey(3), epoch: 4, seq: 5, base: 0, pool: 6, counts };
    let bytes = [
        1, 2, // version, kind
        2, 0, 0, 0, 0, 0, 0, 0, // node
        3, 0, 0, 0, 0, 0, 0, 0, // service
        4, 5, 0, 6, 1, // epoch, seq, base, pool, counts
        1, 2, 3, 4, 5, 6, 7, 8, 0xac, 2, // the backend, 300
    ];
    assert_eq!(Frame::Report(report).encode().unwrap(), bytes);
}
