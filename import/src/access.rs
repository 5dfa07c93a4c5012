//! Rules of who may connect, as nginx and HAProxy have them: the first that fits a client decides, and who fits none
//! may. Flowpin lists who may and who may not, and the latter decides.

use ipnet::IpNet;

use crate::{
    account::{Account, Id, Note, Said},
    values::net,
};

/// A rule: may they, and who.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Rules of a stage are asked among themselves, and all stages have to let a client in.
    pub stage: Stage,
    pub allow: bool,
    pub who: Said<String>,
}

/// When rules are asked: once a connection is there, once the session begins, once there is data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connection,
    Session,
    Content,
}

/// Who may connect, by prefixes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// These; none: everybody.
    pub allowed: Vec<Said<String>>,
    /// Of those, not these.
    pub denied: Vec<Said<String>>,
}

impl Access {
    /// The same prefixes, whoever says so?
    pub fn is_like(&self, other: &Self) -> bool {
        let like = |ours: &[Said<String>], theirs: &[Said<String>]| {
            ours.iter().map(|said| &said.value).eq(theirs.iter().map(|said| &said.value))
        };
        like(&self.allowed, &other.allowed) && like(&self.denied, &other.denied)
    }

    /// What says so.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        self.allowed.iter().chain(&self.denied).map(|said| said.at)
    }

    /// Whom both let in; `None`: nobody.
    pub fn and(self, other: Self) -> Option<Self> {
        let mut denied = self.denied;
        // Defaults may say the same of both.
        let more: Vec<_> = other.denied.into_iter().filter(|said| !denied.contains(said)).collect();
        denied.extend(more);
        let (ours, theirs) = (self.allowed, other.allowed);
        if ours == theirs {
            return Some(Self { allowed: ours, denied });
        }
        if ours.is_empty() || theirs.is_empty() {
            return Some(Self { allowed: ours.into_iter().chain(theirs).collect(), denied });
        }
        let inner = |a: &Said<String>, b: &Said<String>| match (net(&a.value), net(&b.value)) {
            (Some(ours), Some(theirs)) if ours.contains(&theirs) => Some(b.clone()),
            (Some(ours), Some(theirs)) => theirs.contains(&ours).then(|| a.clone()),
            // What is no prefix is for a person to read.
            (None, _) => Some(a.clone()),
            (_, None) => Some(b.clone()),
        };
        let allowed: Vec<_> = ours.iter().flat_map(|a| theirs.iter().filter_map(|b| inner(a, b))).collect();
        (!allowed.is_empty()).then_some(Self { allowed, denied })
    }
}

/// A rule that decides for some; what is no prefix is known to overlap with nothing.
struct Kept {
    allow: bool,
    net: Option<IpNet>,
    who: Said<String>,
}

impl Kept {
    fn holds(&self, other: &Self) -> bool {
        self.net.zip(other.net).is_some_and(|(own, other)| own.contains(&other))
    }
}

const LISTED: &str = "It is so where source_ranges lists who may.";
const OPEN: &str = "Everybody whom deny_ranges doesn't name is let in: there is nothing to list.";

/// Who may, as lists say it.
///
/// # Errors
/// Nobody may, and who says so.
pub fn access(rules: &[Rule], account: &Account, notes: &mut Vec<Note>) -> Result<Access, Id> {
    let mut all = Access::default();
    for stage in [Stage::Connection, Stage::Session, Stage::Content] {
        let of_stage: Vec<&Rule> = rules.iter().filter(|rule| rule.stage == stage).collect();
        let Some(last) = of_stage.last().map(|rule| rule.who.at) else { continue };
        all = all.and(by_first(&of_stage, account, notes)?).ok_or(last)?;
    }
    Ok(all)
}

/// Who may by rules of which the first that fits decides.
fn by_first(rules: &[&Rule], account: &Account, notes: &mut Vec<Note>) -> Result<Access, Id> {
    let mut kept: Vec<Kept> = Vec::new();
    let mut rules = rules.iter();
    // What is said of all others, in the end.
    let mut all = None;
    for Rule { allow, who, .. } in rules.by_ref() {
        match who.value.as_str() {
            "all" => {
                all = Some((*allow, who.at));
                break;
            }
            "unix:" => notes.push(Note::new(who.at, "Packets don't come by Unix sockets.")),
            text => {
                let rule = Kept { allow: *allow, net: net(text), who: who.clone() };
                match kept.iter().find(|first| first.holds(&rule)) {
                    Some(first) => {
                        let line = account.item(first.who.at).line;
                        let never = format!("Line {line} decides for all of {text}: this never does.");
                        notes.push(Note::new(who.at, never));
                    }
                    None => kept.push(rule),
                }
            }
        }
    }
    notes.extend(
        rules.map(|rule| Note::new(rule.who.at, "A rule for all stands above it: it never decides.")),
    );
    let closed = all.is_some_and(|(allow, _)| !allow);
    let denied = denied(&kept, closed, account, notes);
    let allowed = kept.into_iter().filter(|rule| rule.allow).map(|rule| rule.who);
    match all {
        Some((false, at)) => {
            let allowed: Vec<Said<String>> = allowed.collect();
            if allowed.is_empty() {
                return Err(at);
            }
            notes.push(Note::new(at, LISTED));
            Ok(Access { allowed, denied })
        }
        _ => {
            let ids = allowed.map(|who| who.at).chain(all.map(|(_, at)| at));
            notes.extend(ids.map(|at| Note::new(at, OPEN)));
            Ok(Access { allowed: Vec::new(), denied })
        }
    }
}

/// Whom the lists must name who may not. `closed`: who fits no rule may not anyway.
fn denied(kept: &[Kept], closed: bool, account: &Account, notes: &mut Vec<Note>) -> Vec<Said<String>> {
    let mut denied = Vec::new();
    for (i, rule) in kept.iter().enumerate().filter(|(_, rule)| !rule.allow) {
        let (before, after) = kept.split_at(i);
        let at = rule.who.at;
        if closed && rule.net.is_some() && !after.iter().any(|later| later.allow && later.holds(rule)) {
            notes.push(Note::new(at, LISTED));
            continue;
        }
        let let_in: Vec<&Kept> = before.iter().filter(|first| first.allow && rule.holds(first)).collect();
        let (Some(net), Some(first)) = (rule.net, let_in.first()) else {
            denied.push(rule.who.clone());
            continue;
        };
        let line = account.item(first.who.at).line;
        notes.push(Note::new(
            at,
            format!(
                "Line {line} lets some of {net} in before. deny_ranges go before source_ranges, so that the prefixes \
                 around those are denied."
            ),
        ));
        let left = let_in.iter().filter_map(|first| first.net).fold(vec![net], without);
        denied.extend(left.into_iter().map(|net| Said::new(net.to_string(), at)));
    }
    denied
}

/// Prefixes, but for what is in another: in its place are those around it.
fn without(nets: Vec<IpNet>, hole: IpNet) -> Vec<IpNet> {
    let mut left = Vec::new();
    for net in nets {
        if !net.contains(&hole) {
            // It may have gone with a larger one.
            left.extend((!hole.contains(&net)).then_some(net));
            continue;
        }
        let mut around = net;
        while around != hole {
            // It has a longer prefix in it, so that it has halves.
            let halves = around.subnets(around.prefix_len() + 1).into_iter().flatten();
            let (inner, outer): (Vec<IpNet>, Vec<IpNet>) = halves.partition(|half| half.contains(&hole));
            left.extend(outer);
            let Some(half) = inner.first() else { break };
            around = *half;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules as `+prefix` and `-prefix`, those of a later stage behind `;`; lists likewise, and the lines with notes.
    fn of(rules: &str) -> (Result<String, usize>, Vec<usize>) {
        let mut account = Account::default();
        let rules: Vec<Rule> = rules
            .split_whitespace()
            .enumerate()
            .map(|(i, text)| {
                let stage = if text.starts_with(';') { Stage::Content } else { Stage::Connection };
                let (sign, who) = text.trim_start_matches(';').split_at(1);
                Rule { stage, allow: sign == "+", who: Said::new(who.into(), account.open(i + 1, text)) }
            })
            .collect();
        let mut notes = Vec::new();
        let made = access(&rules, &account, &mut notes);
        let line = |at: Id| account.item(at).line;
        let shown = made.map_err(line).map(|Access { allowed, denied }| {
            let allowed = allowed.into_iter().map(|said| format!("+{}", said.value));
            let denied = denied.into_iter().map(|said| format!("-{}", said.value));
            allowed.chain(denied).collect::<Vec<_>>().join(" ")
        });
        let mut lines: Vec<usize> = notes.iter().map(|note| line(note.at)).collect();
        lines.sort_unstable();
        (shown, lines)
    }

    #[test]
    fn lists_say_what_rules_do() {
        for (rules, lists, noted) in [
            ("", "", &[][..]),
            ("-10.9.0.0/16", "-10.9.0.0/16", &[]),
            ("+10.0.0.0/8 -all", "+10.0.0.0/8", &[2]),
            ("-10.9.0.0/16 +10.0.0.0/8 -all", "+10.0.0.0/8 -10.9.0.0/16", &[3]),
            ("-10.9.0.0/16 -192.0.2.1 +10.0.0.0/8 -all", "+10.0.0.0/8 -10.9.0.0/16", &[2, 4]),
            ("+10.0.0.0/8 -10.9.0.0/16 -all", "+10.0.0.0/8", &[2, 3]),
            ("+10.0.0.0/8 -10.9.0.0/16", "", &[1, 2]),
            ("-10.0.0.0/8 +10.9.0.0/16 +192.0.2.0/24 -all", "+192.0.2.0/24", &[1, 2, 4]),
            ("-10.9.0.1 +all -10.0.0.0/8", "-10.9.0.1", &[2, 3]),
            ("+10.0.0.0/10 -10.0.0.0/8", "-10.128.0.0/9 -10.64.0.0/10", &[1, 2]),
            (
                "+10.0.0.0/10 -10.0.0.0/8 +10.0.0.0/7 -all",
                "+10.0.0.0/10 +10.0.0.0/7 -10.128.0.0/9 -10.64.0.0/10",
                &[2, 4],
            ),
            ("+10.0.0.0/10 +10.64.0.0/10 -10.0.0.0/8", "-10.128.0.0/9", &[1, 2, 3]),
            ("+unix: -fd00::/8 -what", "-fd00::/8 -what", &[1]),
            ("+10.0.0.0/8 ;-10.9.0.0/16", "-10.9.0.0/16", &[1]),
            ("+10.0.0.0/8 +fd00::/8 -all ;+10.9.0.0/16 ;-all", "+10.9.0.0/16", &[3, 5]),
            ("-10.0.0.1/8", "-10.0.0.1/8", &[]),
        ] {
            assert_eq!(of(rules), (Ok(lists.into()), noted.to_vec()), "{rules}");
        }
        assert_eq!(of("-10.0.0.0/8 -all"), (Err(2), vec![1]));
        assert_eq!(of("+10.0.0.0/8 -all ;+fd00::/8 ;-all").0, Err(4));
    }

    /// Each address of a small net, by the rules and by the lists.
    #[test]
    fn each_client_is_judged_alike() {
        let nets = ["10.0.0.0/28", "10.0.0.0/29", "10.0.0.4/30", "10.0.0.6", "10.0.0.8/29", "10.0.0.12/31"];
        let inside =
            |text: &str, client: IpNet| text == "all" || net(text).is_some_and(|n| n.contains(&client));
        for choice in 0..12_usize.pow(3) {
            let picks = [choice % 12, choice / 12 % 12, choice / 144];
            for last in ["", "-all", "+all"] {
                let mut rules: Vec<String> = picks
                    .iter()
                    .map(|pick| format!("{}{}", if pick % 2 == 0 { "+" } else { "-" }, nets[pick / 2]))
                    .collect();
                rules.extend((!last.is_empty()).then(|| last.to_string()));
                let lists = of(&rules.join(" ")).0;
                for host in 0..16_u8 {
                    let client = net(&format!("10.0.0.{host}")).unwrap();
                    let first = rules.iter().find(|rule| inside(&rule[1..], client));
                    let want = first.is_none_or(|rule| rule.starts_with('+'));
                    let got = lists.as_ref().is_ok_and(|lists| {
                        let lists: Vec<&str> = lists.split_whitespace().collect();
                        let of = |sign| lists.iter().filter_map(move |text| text.strip_prefix(sign));
                        (of('+').next().is_none() || of('+').any(|text| inside(text, client)))
                            && !of('-').any(|text| inside(text, client))
                    });
                    assert_eq!(got, want, "{client} by {rules:?}: {lists:?}");
                }
            }
        }
    }
}
