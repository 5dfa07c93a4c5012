//! Flowpin's file, with comments beside what they concern. Whatever is printed is entered into the account as it
//! is printed.

mod comment;
mod service;

use crate::{
    Format,
    account::{Id, Note},
    model::{Draft, Forward, Probe, Service},
};

/// The file's text.
pub fn write(format: Format, draft: &mut Draft) -> String {
    let mut body = String::new();
    for service in &draft.services {
        body.push('\n');
        body.push_str(&service::service(&mut draft.account, service));
    }
    let mut text = head(format, draft);
    let notes = std::mem::take(&mut draft.notes);
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&comment::notes(&mut draft.account, &notes));
    }
    text.push_str(&body);
    let rest: Vec<Note> = draft.account.open_items().into_iter().map(without_effect).collect();
    if !rest.is_empty() {
        text.push('\n');
        text.push_str(&comment::notes(&mut draft.account, &rest));
    }
    text
}

fn without_effect(id: Id) -> Note {
    Note::new(id, "It has no effect on any service that is in force here: nothing is made of it.")
}

/// What a reader should know first.
fn head(format: Format, draft: &Draft) -> String {
    let (all, off) =
        (draft.services.len(), draft.services.iter().filter(|service| service.off.is_some()).count());
    let count = match off {
        0 => format!("Services: {all}."),
        _ => format!("Services: {}, and {off} as comments, with the reason.", all - off),
    };
    let mut text = comment::lines(&format!(
        "Made by `flowpin import {}`. Comments name the lines of that file that have no equivalent here, \
         and say what to do. {count}",
        format.name()
    ));
    text.push_str("#\n");
    text.push_str(&comment::lines(format.differs()));
    text.push_str("#\n");
    let by_snat = |service: &Service| service.forward == Some(Forward::Snat);
    text.push_str(&comment::lines(match draft.services.iter().any(by_snat) {
        true => {
            "Nothing is balanced until interfaces are named: those by which clients come and, since forward = \"snat\" \
             has answers translated where they come in, those by which backends are reached. `flowpin check`, run on \
             the node, says which are missing."
        }
        false => "Nothing is balanced until an interface is named:",
    }));
    text.push_str("# [[interface]]\n# match = \"eth0\"\n# attach = \"xdp\"\n");
    let programs = |service: &Service| {
        service.off.is_none()
            && service.check.as_ref().is_some_and(|check| matches!(check.probe, Probe::Exec(_)))
    };
    if draft.services.iter().any(programs) {
        text.push_str("#\n");
        text.push_str(&comment::lines(
            "Programs check backends here. They run as the agent's user, and only if it is switched on: it is off \
             otherwise, and services with health of type exec are refused. Read the commands, and uncomment:",
        ));
        text.push_str("# [agent]\n# exec_checks = true\n");
    }
    text
}
