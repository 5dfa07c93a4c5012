//! Every command and option of the manual page is translated, or refused by name with what to do instead.

use flowpin_import::ipvs::{Likeness, SCHEDULERS};
use lb_ipvsadm::{COMMANDS, Change, Command, Fate, OPTIONS, Told};

/// What the manual page names.
const MANUAL: &str = "\
    -A --add-service -E --edit-service -D --delete-service -C --clear -R --restore -S --save -a --add-server \
    -e --edit-server -d --delete-server -L -l --list -Z --zero --set --start-daemon --stop-daemon -h --help \
    -t --tcp-service -u --udp-service --sctp-service -f --fwmark-service -s --scheduler -p --persistent \
    -M --netmask --pe -b --sched-flags -r --real-server -g --gatewaying -i --ipip --tun-type --tun-port \
    --tun-nocsum --tun-csum --tun-remcsum -m --masquerading -w --weight -x --u-threshold -y --l-threshold \
    -c --connection --timeout --daemon --stats --rate --thresholds --persistent-conn --tun-info --sort --nosort \
    -n --numeric --exact -6 --ipv6 -o --ops --syncid --sync-maxlen --mcast-interface --mcast-group --mcast-port \
    --mcast-ttl";

/// A use of each option that is done, in both of its forms.
const DONE: [(&str, &str); 37] = [
    ("-t", "-A -t 10.0.0.1:80"),
    ("-t", "--add-service --tcp-service=[2001:db8::80]:80"),
    ("-u", "-A -u 10.0.0.1:53"),
    ("-u", "-At 10.0.0.1:53"),
    ("-s", "-A -t10.0.0.1:80 -swlc"),
    ("-s", "-E -t 10.0.0.1:80 --scheduler mh"),
    ("-b", "-A -t 10.0.0.1:80 -s sh -b sh-port,sh-fallback"),
    ("-b", "-A -t 10.0.0.1:80 -s mh --sched-flags=mh-port"),
    ("-p", "-A -t 10.0.0.1:80 -p"),
    ("-p", "-A -t 10.0.0.1:0 -p 360 -s rr"),
    ("-p", "-A -t 10.0.0.1 --persistent"),
    ("-M", "-A -t [2001:db8::80]:80 -p -M 64"),
    ("-M", "-A -t 10.0.0.1:80 -p 5 --netmask 255.255.255.255"),
    ("-r", "-a -t 10.0.0.1:80 -r 10.0.1.1:80"),
    ("-r", "-d -t 10.0.0.1:80 --real-server=10.0.1.1"),
    ("-g", "-a -t 10.0.0.1:80 -r 10.0.1.1 -g"),
    ("-i", "-a -t 10.0.0.1:80 -r 10.0.1.1 --ipip"),
    ("-m", "-e -t 10.0.0.1:80 -r 10.0.1.1:8080 -mw 3"),
    ("--tun-type", "-a -t 10.0.0.1:80 -r 10.0.1.1 -i --tun-type ipip"),
    ("-w", "-a -t 10.0.0.1:80 -r 10.0.1.1 -w 0"),
    ("-x", "-a -t 10.0.0.1:80 -r 10.0.1.1 -x 100"),
    ("-y", "-a -t 10.0.0.1:80 -r 10.0.1.1 --u-threshold 100 -y 0"),
    ("-c", "-Lcn"),
    ("--timeout", "-L --timeout"),
    ("--stats", "-L -n --stats --exact"),
    ("--exact", "-ln --rate --exact"),
    ("--rate", "--list --numeric --rate"),
    ("--thresholds", "-L --thresholds"),
    ("--persistent-conn", "-L --persistent-conn"),
    ("--tun-info", "-L --tun-info"),
    ("--sort", "-L --sort"),
    ("--nosort", "-L --nosort"),
    ("-n", "-L -n -t 10.0.0.1:80"),
    ("-n", "-S -n"),
    ("-E", "-E -u [2001:db8::80]:53 -s sed"),
    ("-C", "-C"),
    ("--set", "--set 900 0 300"),
];

/// A use of each that is refused, and a word of what to do instead.
const REFUSED: [(&str, &str, &str); 34] = [
    ("-f", "-A -f 1 -s wlc", "--affinity-group"),
    ("--fwmark-service", "-D --fwmark-service 1", "--vip ADDRESS"),
    ("-6", "-A -6 -t [::1]:80", "brackets"),
    ("--sctp-service", "-A --sctp-service 10.0.0.1:80", "IPVS"),
    ("-o", "-A -u 10.0.0.1:53 -o", "--timeout-udp"),
    ("--pe", "-A -u 10.0.0.1:5060 -p 60 --pe sip", "-p"),
    ("-s", "-A -t 10.0.0.1:80 -s fo", "--backup"),
    ("-s", "-A -t 10.0.0.1:80 -s ovf", "wlc"),
    ("-s", "-A -t 10.0.0.1:80 -s lblc", "wlc"),
    ("-s", "-A -t 10.0.0.1:80 -s lblcr", "wlc"),
    ("-s", "-A -t 10.0.0.1:80 -s dh", "wlc"),
    ("-s", "-A -t 10.0.0.1:80 -s best", "wlc"),
    ("-b", "-A -t 10.0.0.1:80 -s wlc -b flag-1", "sh-port"),
    ("-b", "-A -t 10.0.0.1:80 -s mh -b sh-port", "mh-port"),
    ("-b", "-A -t 10.0.0.1:80 -s mh -b mh-far", "mh-fallback"),
    ("-M", "-A -t 10.0.0.1:80 -p -M 255.255.255.0", "leave it out"),
    ("-M", "-A -t [::1]:80 -M 64", "give -p"),
    ("-w", "-a -t 10.0.0.1:80 -r 10.0.1.1 -w 65536", "divide"),
    ("-y", "-a -t 10.0.0.1:80 -r 10.0.1.1 -x 9 -y 5", "leave it out"),
    ("--tun-type", "-a -t 10.0.0.1:80 -r 10.0.1.1 -i --tun-type gue", "ipip"),
    ("--tun-port", "-a -t 10.0.0.1:80 -r 10.0.1.1 -i --tun-port 6080", "IPIP"),
    ("--tun-nocsum", "-a -t 10.0.0.1:80 -r 10.0.1.1 -i --tun-nocsum", "IPIP"),
    ("--tun-csum", "-a -t 10.0.0.1:80 -r 10.0.1.1 -i --tun-csum", "IPIP"),
    ("--tun-remcsum", "-a -t 10.0.0.1:80 -r 10.0.1.1 -i --tun-remcsum", "IPIP"),
    ("--daemon", "-L --daemon", "flowpin cluster"),
    ("--start-daemon", "--start-daemon master --syncid 1", "flowpin cluster"),
    ("--stop-daemon", "--stop-daemon backup", "flowpin cluster"),
    ("--syncid", "--start-daemon master --syncid 1", "flowpin cluster"),
    ("--sync-maxlen", "--start-daemon master --sync-maxlen 1", "flowpin cluster"),
    ("--mcast-interface", "--start-daemon master --mcast-interface eth0", "flowpin cluster"),
    ("--mcast-group", "--start-daemon master --mcast-group 224.0.0.81", "flowpin cluster"),
    ("--mcast-port", "--start-daemon master --mcast-port 1", "flowpin cluster"),
    ("--mcast-ttl", "--start-daemon master --mcast-ttl 1", "flowpin cluster"),
    ("-Z", "-Z -t 10.0.0.1:80", "--rate"),
];

/// What ipvsadm itself doesn't take, and a part of the sentence.
const MISTAKES: [(&str, &str); 29] = [
    ("-A", "needs -t"),
    ("-a -t 10.0.0.1:80", "needs -r"),
    ("-A -D -t 1.1.1.1:1", "second command"),
    ("-A -t 10.0.0.1:0", "every port"),
    ("-A -t 10.0.0.1", "every port"),
    ("-A -t 10.0.0.1:80 -p abc", "\"abc\""),
    ("-A -t 10.0.0.1:80 -p 0", "\"0\""),
    ("-A -t 10.0.0.1:99999", "\"10.0.0.1:99999\""),
    ("-A -t 10.0.0.1:+80", "\"10.0.0.1:+80\""),
    ("-A -t 10.0.0.1:http", "write numbers"),
    ("-A -t web.example:80", "write numbers"),
    ("-A -t [10.0.0.1]:80", "write numbers"),
    ("-A -t [2001:db8::80]80", "write numbers"),
    ("-A -t 10.0.0.1:80 -s", "-s needs a value"),
    ("-A -t 10.0.0.1:80 foo", "\"foo\" belongs to no option"),
    ("-A -t 10.0.0.1:80 -t 10.0.0.1:81", "twice"),
    ("-A -t 10.0.0.1:80 -u 10.0.0.1:80", "-t and -u"),
    ("-A -t 10.0.0.1:80 -w 3", "doesn't go with -A"),
    ("-a -t 10.0.0.1:80 -r 10.0.1.1 -w -1", "\"-1\""),
    ("-a -t 10.0.0.1:80 -r 10.0.1.1 -g -m", "-g and -m"),
    ("-a -t 10.0.0.1:80 -r 10.0.1.1 -m --tun-type ipip", "goes with -i"),
    ("-t 10.0.0.1:80 -A", "the command comes first"),
    ("-n", "the command comes first"),
    ("foo", "the command comes first"),
    ("-L --bogus", "\"--bogus\" isn't known"),
    ("-L -c --stats", "-c and --stats"),
    ("-L -c -t 10.0.0.1:80", "connection list"),
    ("--set 1 2", "three times"),
    ("-L --api-socket /run/x", "flowpin --api-socket ... ipvsadm -L"),
];

fn parse(line: &str) -> Result<Command, lb_ipvsadm::Refusal> {
    Command::parse(&line.split_whitespace().collect::<Vec<_>>())
}

fn known(name: &str) -> Option<(&'static str, Fate)> {
    let name = if name == "-l" { "-L" } else { name };
    let verb = COMMANDS.iter().find(|verb| verb.name == name || verb.long == name);
    let option = OPTIONS.iter().find(|option| option.name == name || option.long == name);
    verb.map(|verb| (verb.name, verb.fate)).or(option.map(|option| (option.name, option.fate)))
}

#[test]
fn everything_in_the_manual_is_translated_or_refused_by_name() {
    for name in MANUAL.split_whitespace() {
        let (name, fate) =
            known(name).unwrap_or_else(|| panic!("{name} is in the manual page and nowhere here"));
        let is_command = COMMANDS.iter().any(|verb| verb.name == name);
        let seen = match fate {
            Fate::Refused(instead) => {
                assert!(!instead.is_empty());
                REFUSED.iter().any(|(other, ..)| known(other).is_some_and(|(other, _)| other == name))
            }
            Fate::Done | Fate::Always => is_command || DONE.iter().any(|(other, _)| *other == name),
        };
        assert!(seen, "no line shows what becomes of {name}");
    }
}

#[test]
fn what_is_done_is_understood() {
    for (name, line) in DONE {
        assert!(known(name).is_some_and(|(_, fate)| !matches!(fate, Fate::Refused(_))), "{name}");
        parse(line).unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
    }
    assert_eq!(parse(""), parse("-L"));
    assert_eq!(parse("-h"), Ok(Command::Help));
    for command in ["-R", "--restore"] {
        assert_eq!(parse(command), Ok(Command::Restore));
    }
    assert_eq!(parse("-C"), Ok(Command::Change(Change::Clear)));
}

#[test]
fn what_is_refused_says_what_to_do_instead() {
    for (name, line, instead) in REFUSED {
        let refusal = parse(line).expect_err(line);
        let text = refusal.to_string();
        assert_eq!(refusal.told, Told::Failed, "{line}: {text}");
        assert!(text.contains(instead), "{line}: {text}");
        assert!(!text.contains('\n'), "{text}");
        if let Some((_, Fate::Refused(sentence))) = known(name) {
            assert!(text.ends_with(sentence), "{line}: {text}");
        }
    }
}

#[test]
fn mistakes_are_named() {
    for (line, part) in MISTAKES {
        let refusal = parse(line).expect_err(line);
        assert_eq!(refusal.told, Told::Usage, "{line}: {refusal}");
        assert!(refusal.to_string().contains(part), "{line}: {refusal}");
    }
}

#[test]
fn every_scheduler_is_translated_or_refused() {
    for scheduler in SCHEDULERS {
        let name = scheduler.name;
        match (parse(&format!("-A -t 10.0.0.1:80 -s {name}")), scheduler.likeness) {
            (Err(refusal), Likeness::Unlike(..)) => assert!(refusal.to_string().contains(name), "{refusal}"),
            (Ok(Command::Change(Change::AddService { settings, .. })), likeness) => {
                assert_eq!(settings.algorithm, scheduler.algorithm, "{name}");
                assert_eq!(settings.affinity.is_some(), scheduler.by_client, "{name}");
                assert_eq!(
                    settings.notes.is_empty(),
                    likeness == Likeness::Same,
                    "{name}: {:?}",
                    settings.notes
                );
            }
            (other, likeness) => panic!("{name}, {likeness:?}: {other:?}"),
        }
    }
}
