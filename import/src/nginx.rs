//! nginx's configuration: what `stream` balances. A file that has no `stream` block, but servers as they are in
//! one, is read as its inside. `http` and the rest are named and left where they are.

mod lex;
mod listen;
mod matching;
pub mod remedies;
mod server;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use self::{
    matching::Match,
    remedies::{HTTP, TOP, remedy},
    server::Settings,
    upstream::Upstream,
};
use crate::{
    ImportError,
    account::Id,
    directive::Directive,
    model::{Draft, Probe, Service},
};

/// What has been read so far.
#[derive(Default)]
struct Reader {
    draft: Draft,
    upstreams: BTreeMap<String, Upstream>,
    /// What health checks may want for an answer, by name.
    matches: BTreeMap<String, Match>,
}

/// Reads all of it.
///
/// # Errors
/// A block, a directive or a quoted text has no end.
pub fn read(text: &str) -> Result<Draft, ImportError> {
    let directives = lex::read(text)?;
    let mut reader = Reader::default();
    let (mut inside, mut around): (Vec<&Directive>, Vec<&Directive>) = (Vec::new(), Vec::new());
    for directive in &directives {
        match directive.name() {
            "stream" if directive.block.is_some() => inside.push(directive),
            _ => around.push(directive),
        }
    }
    // The file may be one that a `stream` block includes.
    let (bare, around): (Vec<&Directive>, Vec<&Directive>) =
        around.into_iter().partition(|directive| is_of_stream(directive));
    for directive in around {
        let at = directive.enter_whole(&mut reader.draft.account);
        reader.draft.note(at, if is_of_http(directive) { HTTP } else { remedy(&TOP, directive.name()) });
    }
    for stream in inside {
        let at = stream.enter(&mut reader.draft.account);
        reader.draft.account.translate(at);
        reader.stream(&stream.inside().iter().collect::<Vec<_>>());
    }
    reader.stream(&bare);
    reader.finish();
    Ok(reader.draft)
}

/// A block that stands in `stream`, not in `http`.
fn is_of_stream(directive: &Directive) -> bool {
    matches!(directive.name(), "upstream" | "server") && directive.block.is_some() && !is_of_http(directive)
}

/// Is there anything in it that only `http` has?
fn is_of_http(directive: &Directive) -> bool {
    let web = |inner: &Directive| {
        matches!(
            inner.name(),
            "location" | "root" | "keepalive" | "rewrite" | "proxy_set_header" | "fastcgi_pass"
        ) || inner.name() == "proxy_pass" && inner.arg().contains("://")
    };
    directive.name() == "http" || directive.inside().iter().any(web)
}

impl Reader {
    /// What is in a `stream` block.
    fn stream(&mut self, directives: &[&Directive]) {
        for directive in directives.iter().filter(|directive| directive.name() == "upstream") {
            self.upstream(directive);
        }
        for directive in directives.iter().filter(|directive| directive.name() == "match") {
            let made = Match::read(&mut self.draft.account, directive, &mut self.draft.notes);
            self.matches.insert(directive.arg().into(), made);
        }
        let mut settings = Settings::default();
        let mut notes = Vec::new();
        for directive in
            directives.iter().filter(|directive| !matches!(directive.name(), "upstream" | "server" | "match"))
        {
            settings.take(&mut self.draft.account, directive, &mut notes);
        }
        settings.end_of_block();
        self.draft.notes.append(&mut notes);
        for directive in directives.iter().filter(|directive| directive.name() == "server") {
            self.server(directive, &settings);
        }
    }

    /// Upstreams that no server leads to.
    fn finish(&mut self) {
        let upstreams: BTreeSet<Id> = self.upstreams.values().map(|upstream| upstream.at).collect();
        for service in &mut self.draft.services {
            let udp = service.is_udp();
            let Some(check) = &mut service.check else { continue };
            // What nginx takes for a failure where nothing is checked.
            if udp && upstreams.contains(&check.at) {
                check.probe = Probe::Udp(None);
            }
            for own in service.backends.iter_mut().filter_map(|backend| backend.check.as_mut()) {
                (own.probe, own.port) = (check.probe.clone(), check.port.clone());
            }
        }
        for (name, upstream) in std::mem::take(&mut self.upstreams) {
            if !upstream.used {
                let mut service = Service::new(name, upstream.at);
                upstream.give(&mut service);
                service.turn_off(
                    upstream.at,
                    "No proxy_pass names it: give it a vip and ports if clients are to reach it, and \
                     uncomment it.",
                );
                self.draft.services.push(service);
            }
        }
        self.draft.services.sort_by_key(|service| self.draft.account.item(service.at).line);
    }
}
