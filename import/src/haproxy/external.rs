//! `external-check`: a program that looks at servers.

use std::net::IpAddr;

use super::remedies::{CHECKS, remedy};
use crate::{
    account::{Id, Note, Said},
    directive::Directive,
    model::Command,
    program,
};

const BY_HAND: &str = "It can't be started like that here: write its path from / in health, as { type = \"exec\", \
     command = [\"/path\", \"{address}\", \"{port}\"] }.";
const UNSET: &str = "It gets HAProxy's arguments, but of the variables neither HAPROXY_PROXY_ID nor \
     HAPROXY_SERVER_NAME, _ID, _MAXCONN, _CURCONN, _SSL and _PROTO: have it know a server by its address.";
/// What stands for the listener's address and port in a section that has none.
const NONE: &str = "NOT_USED";

/// What is said of it.
#[derive(Clone, Default)]
pub struct External {
    /// `option external-check`
    pub on: Option<Id>,
    command: Option<Said<String>>,
    /// Where its programs are looked up.
    path: Option<Said<String>>,
}

/// A program as it is started, and who says so too.
pub struct Program {
    pub command: Said<Command>,
    pub same: Vec<Id>,
}

impl External {
    /// The same, while checks are something else's.
    pub fn switched_off(self) -> Self {
        Self { on: None, ..self }
    }

    /// `external-check command PROGRAM`, `external-check path DIRECTORIES`
    ///
    /// # Errors
    /// It is neither; the sentence is a remedy.
    pub fn take(&mut self, directive: &Directive, at: Id) -> Result<(), String> {
        match directive.args() {
            [kind, text] if kind == "command" => self.command = Some(Said::new(text.clone(), at)),
            [kind, text] if kind == "path" => self.path = Some(Said::new(text.clone(), at)),
            _ => return Err(BY_HAND.into()),
        }
        Ok(())
    }

    /// The program, if checks are its; `listener`: the first of the proxy named `proxy`.
    pub fn program(
        &self,
        proxy: &str,
        listener: Option<(IpAddr, u16)>,
        notes: &mut Vec<Note>,
    ) -> Option<Program> {
        let on = self.on?;
        let Some(Said { value: name, at }) = &self.command else {
            notes.push(Note::new(on, remedy(&CHECKS, "external-check")));
            return None;
        };
        let (address, port) =
            listener.map_or_else(Default::default, |(address, port)| (address.to_string(), port.to_string()));
        let mut variables = vec![
            format!("HAPROXY_PROXY_NAME={proxy}"),
            format!("HAPROXY_PROXY_ADDR={address}"),
            format!("HAPROXY_PROXY_PORT={port}"),
        ];
        variables.extend(self.path.iter().map(|said| format!("PATH={}", said.value)));
        let odd = program::is_odd(name) || variables.iter().any(|text| program::is_odd(text));
        variables.extend(["HAPROXY_SERVER_ADDR={address}".into(), "HAPROXY_SERVER_PORT={port}".into()]);
        let given = |text: String| if text.is_empty() { NONE.to_string() } else { text };
        let words = vec![name.clone(), given(address), given(port), "{address}".into(), "{port}".into()];
        let Some(command) = program::command(words, variables).filter(|_| !odd) else {
            let ids = [on, *at].into_iter().chain(self.path.iter().map(|said| said.at));
            notes.extend(ids.map(|id| Note::new(id, BY_HAND)));
            return None;
        };
        notes.push(Note::new(*at, UNSET));
        let same = self.path.iter().map(|said| said.at).chain([on]).collect();
        Some(Program { command: Said::new(command, *at), same })
    }
}
