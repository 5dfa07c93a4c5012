//! What commands come to beside what is there.

use lb_ipvsadm::{
    Change, Command, Protocol, Refusal, Table, Told,
    plan::{Plan, Step, plan},
    restore,
    table::{Counts, Frontend, Server, Service},
};

use flowpin_import::ipvs::{Algorithm, Forward};

fn server(name: &str, address: &str, port: Option<u16>) -> Server {
    Server {
        name: name.into(),
        elsewhere: None,
        address: address.parse().unwrap(),
        port,
        weight: 1,
        draining: false,
        unhealthy: false,
        limit: None,
        active: 0,
        clients: 0,
        counts: Counts::default(),
    }
}

fn frontend(address: &str, first: u16, last: u16) -> Frontend {
    let address = address.parse().unwrap();
    Frontend { protocol: Protocol::Tcp, address, first, last, to: None, forward: Forward::Snat }
}

fn service(name: &str, frontends: Vec<Frontend>, servers: Vec<Server>) -> Service {
    Service {
        name: name.into(),
        elsewhere: None,
        frontends,
        algorithm: Algorithm::LeastConnections,
        affinity: None,
        unsaid: Vec::new(),
        servers,
    }
}

/// `web` with two servers, one of which has no port of its own and the other drains; `far` at two addresses, which is
/// declared elsewhere; `range`; `two`.
fn table() -> Table {
    let draining = Server { draining: true, ..server("10.0.1.2:8080", "10.0.1.2", Some(8080)) };
    let web = vec![server("10.0.1.1", "10.0.1.1", None), draining];
    let far = vec![frontend("10.0.0.2", 80, 80), frontend("10.0.0.3", 80, 80)];
    let other = Server { elsewhere: Some("kubernetes".into()), ..server("10.0.1.5", "10.0.1.5", None) };
    let far = Service { elsewhere: Some("file".into()), ..service("far", far, vec![other]) };
    let web = service("web", vec![frontend("10.0.0.1", 80, 80)], web);
    let two = service("two", vec![frontend("10.0.0.4", 80, 80), frontend("10.0.0.5", 80, 80)], Vec::new());
    Table {
        services: vec![web, far, service("range", vec![frontend("10.0.0.1", 8001, 8003)], Vec::new()), two],
    }
}

fn change(line: &str) -> Change {
    match Command::parse(&line.split_whitespace().collect::<Vec<_>>()) {
        Ok(Command::Change(change)) => change,
        other => panic!("{line}: {other:?}"),
    }
}

fn planned(line: &str) -> Result<Plan, Refusal> {
    plan(&table(), &[(None, change(line))])
}

fn steps(plan: Plan) -> Vec<Step> {
    plan.steps.into_iter().map(|(_, step)| step).collect()
}

#[test]
fn what_ipvsadm_refuses_for_the_table_is_refused_in_its_words() {
    for (line, says, names) in [
        ("-A -t 10.0.0.1:80", "Service already exists", "\"web\""),
        ("-A -t 10.0.0.1:8002", "Service already exists", "\"range\""),
        ("-A -t 10.0.0.1:0 -p", "Service already exists", "\"web\""),
        ("-E -t 10.0.0.1:81", "No such service", "-t 10.0.0.1:81"),
        ("-E -u 10.0.0.1:80", "No such service", "-u 10.0.0.1:80"),
        ("-D -t 10.0.0.1:8002", "No such service", "\"range\""),
        ("-a -t 10.0.0.9:80 -r 10.0.1.1", "No such service", "10.0.0.9:80"),
        ("-a -t 10.0.0.1:80 -r 10.0.1.1:80 -m", "Destination already exists", "10.0.1.1"),
        ("-a -t 10.0.0.1:80 -r 10.0.1.2:8080 -m", "Destination already exists", "10.0.1.2:8080"),
        ("-d -t 10.0.0.1:80 -r 10.0.1.1:8080", "No such destination", "10.0.1.1:8080"),
        ("-e -t 10.0.0.1:80 -r 10.0.1.3", "No such destination", "10.0.1.3:80"),
        ("-D -t 10.0.0.5:80", "2 frontends", "flowpin service remove two"),
        ("-D -t 10.0.0.2:80", "\"far\" isn't the command line's", "SIGHUP"),
        ("-E -t 10.0.0.3:80", "\"far\" isn't the command line's", "SIGHUP"),
        ("-e -t 10.0.0.2:80 -r 10.0.1.5", "10.0.1.5 isn't the command line's", "kubernetes"),
        ("-d -t 10.0.0.2:80 -r 10.0.1.5", "10.0.1.5 isn't the command line's", "kubernetes"),
        ("-a -t 10.0.0.1:80 -r 10.0.1.3", "dsr-l2", "give -m"),
        ("-a -t 10.0.0.1:80 -r 10.0.1.3:81 -g", "another port", "use -m"),
        ("-a -t 10.0.0.1:80 -r [fd00::1]:80 -m", "IP version", "[fd00::1]:80"),
    ] {
        let refusal = planned(line).expect_err(line);
        let text = refusal.to_string();
        assert_eq!(refusal.told, Told::Failed, "{line}");
        assert!(text.contains(says) && text.contains(names), "{line}: {text}");
    }
}

#[test]
fn servers_are_found_whether_or_not_they_name_their_port() {
    for (line, found) in [
        ("-d -t 10.0.0.1:80 -r 10.0.1.1", "10.0.1.1"),
        ("-d -t 10.0.0.1:80 -r 10.0.1.1:80", "10.0.1.1"),
        ("-d -t 10.0.0.1:80 -r 10.0.1.2:8080", "10.0.1.2:8080"),
    ] {
        let want = Step::RemoveServer { service: "web".into(), server: found.into() };
        assert_eq!(steps(planned(line).unwrap()), [want], "{line}");
    }
}

#[test]
fn source_nat_is_masquerading_and_the_first_server_says_how_packets_go() {
    let plan = planned("-a -t 10.0.0.1:80 -r 10.0.1.3:8080 -m -w 3 -x 9").unwrap();
    let [Step::AddServer { service, server }] = &steps(plan)[..] else { panic!() };
    assert_eq!(
        (service.as_str(), server.address.as_str(), server.weight, server.limit),
        ("web", "10.0.1.3:8080", 3, Some(9))
    );
    let mut table = table();
    table.services[0].servers.clear();
    let changes =
        [(None, change("-a -t 10.0.0.1:80 -r 10.0.1.3 -g")), (None, change("-a -t 10.0.0.1:80 -r 10.0.1.4"))];
    let steps = steps(plan_of(&table, &changes));
    let (forward, before) = (Forward::DsrL2, Forward::Snat);
    assert_eq!(steps[0], Step::Forward { service: "web".into(), forward, before });
    assert!(
        matches!(&steps[1..], [Step::AddServer { .. }, Step::AddServer { server, .. }] if server.address == "10.0.1.4:80")
    );
}

fn plan_of(table: &Table, changes: &[(Option<usize>, Change)]) -> Plan {
    plan(table, changes).unwrap()
}

#[test]
fn an_edit_says_all_anew_but_how_packets_go() {
    let (service, server) = ("web".into(), "10.0.1.1".into());
    let want = Step::EditServer { service, server, to: (1, Some(5)), before: (1, None) };
    assert_eq!(steps(planned("-e -t 10.0.0.1:80 -r 10.0.1.1 -x 5").unwrap()), [want]);
    let plan = planned("-e -t 10.0.0.1:80 -r 10.0.1.2:8080 -w 2").unwrap();
    assert!(plan.notes[0].contains("flowpin backend undrain web 10.0.1.2:8080"), "{:?}", plan.notes);
    let plan = planned("-E -t 10.0.0.5:80 -s rr -p 60").unwrap();
    assert!(
        plan.notes[0].contains("Weights count here") && plan.notes[1].contains("2 frontends"),
        "{:?}",
        plan.notes
    );
    let [Step::Choose { service, affinity: Some(affinity), .. }] = &steps(plan)[..] else { panic!() };
    assert_eq!((service.as_str(), affinity.timeout.as_secs()), ("two", 60));
}

#[test]
fn clearing_and_timeouts_are_for_what_is_the_command_lines() {
    let plan = planned("-C").unwrap();
    assert!(
        plan.kept.len() == 1 && plan.kept[0].contains("\"far\"") && plan.kept[0].contains("SIGHUP"),
        "{:?}",
        plan.kept
    );
    let removed = |name: &str| Step::RemoveService { service: name.into() };
    assert_eq!(steps(plan), [removed("web"), removed("range"), removed("two")]);
    let plan = planned("--set 900 0 300").unwrap();
    assert!(plan.kept[0].contains("\"far\""), "{:?}", plan.kept);
    let all = steps(plan);
    assert_eq!(all.len(), 3);
    for step in all {
        let Step::Timeouts { timeouts, .. } = step else { panic!("{step:?}") };
        assert_eq!(
            (timeouts.tcp.map(|t| t.as_secs()), timeouts.tcp_fin, timeouts.udp),
            (Some(900), None, None)
        );
    }
}

#[test]
fn a_table_is_one_plan_or_none() {
    let text = "# saved\n\
        --set 900 120 300\n\
        -A -t 10.0.0.9:80 -s wlc -p 300\n\
        ipvsadm -a -t 10.0.0.9:80 -r 10.0.1.1:80 -g -w 2\n\
        /sbin/ipvsadm -a -t 10.0.0.9:80 -r '10.0.1.2:80' -g -w 1 -x 7\n\n\
        -A -u [fd00::9]:53 -s mh -b mh-port\n\
        -e -t 10.0.0.9:80 -r 10.0.1.1:80 -g -w 5\n\
        -d -t 10.0.0.1:80 -r 10.0.1.1\n\
        -A -t 10.0.0.9:81\n\
        -D -t 10.0.0.9:81\n";
    let lines: Vec<_> =
        restore::read(text).unwrap().into_iter().map(|(n, change)| (Some(n), change)).collect();
    let Plan { steps, notes, .. } = plan(&table(), &lines).unwrap();
    let [
        (Some(3), Step::AddService(web)),
        (Some(7), Step::AddService(dns)),
        (Some(9), Step::RemoveServer { .. }),
        rest @ ..,
    ] = &steps[..]
    else {
        panic!("{steps:?}")
    };
    assert_eq!((web.name.as_str(), web.forward), ("tcp/10.0.0.9:80", Some(Forward::DsrL2)));
    let servers: Vec<_> = web.servers.iter().map(|s| (s.address.as_str(), s.weight, s.limit)).collect();
    assert_eq!(servers, [("10.0.1.1:80", 5, None), ("10.0.1.2:80", 1, Some(7))]);
    assert_eq!(
        (dns.name.as_str(), dns.algorithm, dns.affinity),
        ("udp/fd00--9:53", Algorithm::ConsistentHash, None)
    );
    // Timeouts come last, and are the new ones' too.
    assert!(
        rest.iter().all(|(line, step)| *line == Some(2) && matches!(step, Step::Timeouts { .. })),
        "{rest:?}"
    );
    assert_eq!(rest.len(), 5);
    assert!(notes[0].starts_with("line 2: --set"), "{notes:?}");

    for (text, says) in [
        ("-C\n-A -t 10.0.0.1:80\nfoo\n", "line 3: \"foo\""),
        ("-A -t 10.0.0.9:80\n-L -n\n", "line 2: it changes nothing"),
        ("ipvsadm\n", "line 1: it changes nothing"),
        ("-A -t 10.0.0.9:80\n-a -t 10.0.0.8:80 -r 10.0.1.1\n", "line 2: No such service"),
        ("-A -t 10.0.0.9:80\n-A -t 10.0.0.9:80\n", "line 2: Service already exists"),
    ] {
        let all = restore::read(text);
        let all = all.and_then(|lines| {
            plan(&table(), &lines.into_iter().map(|(n, change)| (Some(n), change)).collect::<Vec<_>>())
        });
        let refusal = all.expect_err(text);
        assert!(refusal.to_string().starts_with(says), "{text}: {refusal}");
    }
}

#[test]
fn what_was_cleared_can_be_restored_at_once() {
    let text = "-C\n-A -t 10.0.0.1:80\n-a -t 10.0.0.1:80 -r 10.0.1.1 -m\n";
    let lines: Vec<_> =
        restore::read(text).unwrap().into_iter().map(|(n, change)| (Some(n), change)).collect();
    let steps = steps(plan(&table(), &lines).unwrap());
    assert!(
        matches!(&steps[..], [.., Step::RemoveService { .. }, Step::AddService(new)] if new.servers.len() == 1),
        "{steps:?}"
    );
}

#[test]
fn what_can_be_taken_back_is() {
    let lines = "-A -t 10.0.0.9:80\n-a -t 10.0.0.1:80 -r 10.0.1.9 -m\n-e -t 10.0.0.1:80 -r 10.0.1.1 -w 7\n";
    let lines: Vec<_> =
        restore::read(lines).unwrap().into_iter().map(|(n, change)| (Some(n), change)).collect();
    let steps = steps(plan(&table(), &lines).unwrap());
    let (service, server) = ("web".to_string(), "10.0.1.1".to_string());
    let back: Vec<_> = steps.iter().map(Step::back).collect();
    assert_eq!(
        back,
        [
            Some(Step::RemoveService { service: "tcp/10.0.0.9:80".into() }),
            Some(Step::RemoveServer { service: service.clone(), server: "10.0.1.9:80".into() }),
            Some(Step::EditServer { service, server, to: (1, None), before: (7, None) }),
        ]
    );
    for line in ["-D -t 10.0.0.1:80", "-d -t 10.0.0.1:80 -r 10.0.1.1", "-E -t 10.0.0.1:80"] {
        assert_eq!(planned(line).unwrap().steps[0].1.back(), None, "{line}");
    }
}
