//! `--frontend` and `--forward`: lists of KEY=VALUE with commas between.

use crate::api::types::{ForwardBySource, ForwardDecl, FrontendDecl};

/// `address=192.0.2.10,port=80:8080/tcp,scope=local`.
///
/// # Errors
/// A key isn't known or is there twice, or there is no address.
pub fn frontend(text: &str) -> Result<FrontendDecl, String> {
    let mut frontend = FrontendDecl::default();
    let (mut word, mut by) = (None, ForwardBySource::default());
    for (key, value) in pairs(text)? {
        match key {
            "address" => frontend.addresses.push(value.into()),
            "port" => frontend.ports.get_or_insert_default().push(value.into()),
            "source-range" if value.is_empty() => drop(frontend.source_ranges.get_or_insert_default()),
            "source-range" => frontend.source_ranges.get_or_insert_default().push(value.into()),
            "deny-range" if value.is_empty() => drop(frontend.deny_ranges.get_or_insert_default()),
            "deny-range" => frontend.deny_ranges.get_or_insert_default().push(value.into()),
            "scope" => once(key, &mut frontend.scope, value)?,
            "forward" => once(key, &mut word, value)?,
            "forward-pod" => once(key, &mut by.pod, value)?,
            "forward-elsewhere" => once(key, &mut by.elsewhere, value)?,
            _ => {
                return Err(format!(
                    "key \"{key}\" is not known; use address, port, scope, source-range, deny-range, forward, \
                     forward-pod or forward-elsewhere"
                ));
            }
        }
    }
    if frontend.addresses.is_empty() {
        return Err("there is no address in it; write address=192.0.2.10".into());
    }
    frontend.forward = match word {
        Some(_) if by != ForwardBySource::default() => {
            return Err("give forward, or forward-pod and forward-elsewhere, not both".into());
        }
        Some(word) => Some(ForwardDecl::Word(word)),
        None if by == ForwardBySource::default() => None,
        None => Some(ForwardDecl::BySource(by)),
    };
    Ok(frontend)
}

/// `snat`, or `pod=nat,elsewhere=snat`.
///
/// # Errors
/// A key isn't known or is there twice.
pub fn forward(text: &str) -> Result<ForwardDecl, String> {
    if !text.contains('=') {
        return Ok(ForwardDecl::Word(text.into()));
    }
    let mut by = ForwardBySource::default();
    for (key, value) in pairs(text)? {
        match key {
            "pod" => once(key, &mut by.pod, value)?,
            "elsewhere" => once(key, &mut by.elsewhere, value)?,
            _ => return Err(format!("\"{key}\" is not where packets come from; use pod or elsewhere")),
        }
    }
    Ok(ForwardDecl::BySource(by))
}

fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let pair = |part| str::split_once(part, '=').ok_or_else(|| format!("\"{part}\" is not KEY=VALUE"));
    text.split(',').map(pair).collect()
}

fn once(key: &str, place: &mut Option<String>, value: &str) -> Result<(), String> {
    match place.replace(value.into()) {
        None => Ok(()),
        Some(_) => Err(format!("{key} is there twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood() {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let read = frontend(
            "address=192.0.2.10,address=2001:db8::10,port=80:8080/tcp,port=443/tcp,scope=local,\
             source-range=10.0.0.0/8,deny-range=10.9.0.0/16,forward-pod=snat",
        );
        let read = read.unwrap();
        assert_eq!(read.addresses, texts(&["192.0.2.10", "2001:db8::10"]));
        assert_eq!(read.ports, Some(texts(&["80:8080/tcp", "443/tcp"])));
        assert_eq!(read.scope.as_deref(), Some("local"));
        assert_eq!(read.source_ranges, Some(texts(&["10.0.0.0/8"])));
        assert_eq!(read.deny_ranges, Some(texts(&["10.9.0.0/16"])));
        let by = ForwardBySource { pod: Some("snat".into()), elsewhere: None };
        assert_eq!(read.forward, Some(ForwardDecl::BySource(by)));
        let open = frontend("address=::,source-range=,deny-range=,forward=snat").unwrap();
        assert_eq!((open.ports, open.source_ranges), (None, Some(Vec::new())));
        assert_eq!(open.deny_ranges, Some(Vec::new()));
        assert_eq!(open.forward, Some(ForwardDecl::Word("snat".into())));
        assert_eq!(forward("nat"), Ok(ForwardDecl::Word("nat".into())));
        let by = ForwardBySource { pod: Some("nat".into()), elsewhere: Some("snat".into()) };
        assert_eq!(forward("pod=nat,elsewhere=snat"), Ok(ForwardDecl::BySource(by)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("port=80/tcp", "no address"),
            ("192.0.2.10", "KEY=VALUE"),
            ("address=::,adress=::1", "\"adress\""),
            ("address=::,scope=all,scope=local", "scope is there twice"),
            ("address=::,forward=nat,forward-pod=snat", "not both"),
        ] {
            let error = frontend(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(forward("node=snat").unwrap_err().contains("\"node\""));
        assert!(forward("pod=nat,pod=snat").unwrap_err().contains("twice"));
    }
}
