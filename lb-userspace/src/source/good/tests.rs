use super::*;
use crate::source::config::parse;

const HEAD: &str = "[conntrack]\nmax_flows = 4096\n\n[[interface]]\nmatch = \"eth0\"\nattach = \"tc\"\n";

fn service(name: &str, vip: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nports = [\n  \"80/tcp\",\n]\n[[service.backend]]\naddress = \"10.0.0.1\"\n# The end.\n"
    )
}

#[test]
fn each_service_is_kept_as_it_was_when_it_was_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = Good::path(&dir.path().join("deep/state.json"));
    assert!(Good::load(&path).is_none());
    let first =
        parse(&(HEAD.to_string() + &service("a", "10.96.0.1") + &service("b", "10.96.0.2")), "f").unwrap();
    let mut good = Good::of(&first);
    // One is spoilt, one refused, one changed, one gone.
    let text = HEAD.to_string()
        + &service("a", "10.96.0.1").replace("80/tcp", "0/tcp")
        + &service("b", "10.96.0.9")
        + &service("c", "10.96.0.3")
        + &service("d", "10.96.0.4");
    let second = parse(&text, "f").unwrap();
    good.follow(&second, |name| name != "b" && name != "d");
    good.save(&path).unwrap();
    let kept = Good::load(&path).expect("it can be read");
    let shown: Vec<String> = kept
        .services
        .iter()
        .map(|s| format!("{} {}", s.name, s.spec.as_ref().unwrap().frontends[0].addresses[0]))
        .collect();
    assert_eq!(shown, ["a 10.96.0.1", "b 10.96.0.2", "c 10.96.0.3"]);
    assert_eq!((kept.max_flows, kept.interfaces.len()), (4096, 1));
    let whole = std::fs::read_to_string(&path).unwrap();
    for at in 0..whole.len() {
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(Good::load(&path).is_none(), "cut at {at}");
    }
    let gone = parse(HEAD, "f").unwrap();
    good.follow(&gone, |_| true);
    assert!(good.spec("a").is_none());
}
