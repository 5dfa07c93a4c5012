//! Backends as people name them: also as `connection list` does, which writes the port that a connection goes to where
//! the backend has none of its own.

use super::{Handle, invalid};
use crate::{
    api::error::ApiError,
    model::{ServiceSpec, backend_name, host::backend_key, service::parse_backend},
};

impl Handle {
    /// The name that a backend has where it is declared; as it was written, if nobody has such a name.
    ///
    /// # Errors
    /// It is no name; or the port of a backend without one to which no port of the service leads.
    pub(crate) fn named(&self, service: &str, text: &str) -> Result<String, ApiError> {
        let name = backend_key(service, text).map_err(invalid)?;
        let state = self.shared.read();
        match state.desired.services().get(service) {
            Some(spec) => declared(spec, name).map_err(ApiError::NotFound),
            None => Ok(name),
        }
    }
}

fn declared(spec: &ServiceSpec, name: String) -> Result<String, String> {
    let has = |name: &str| spec.backends.contains_key(name) || spec.host(name).is_some();
    let (false, Ok((address, Some(port)))) = (has(&name), parse_backend(&spec.name, &name)) else {
        return Ok(name);
    };
    let portless = backend_name(address, None);
    if !has(&portless) {
        return Ok(name);
    }
    let led = || spec.frontends.iter().flat_map(|f| &f.ports).map(|ports| ports.led_to(None));
    if led().any(|ports| (ports.first()..=ports.last()).contains(&port)) {
        return Ok(portless);
    }
    let ports: Vec<String> = led().map(|ports| ports.to_string()).collect();
    Err(format!(
        "service \"{}\" has no backend {name}; it has {portless}, to whose ports {} it leads",
        spec.name,
        ports.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frontend, Origin, service::make_backend};

    #[test]
    fn a_backend_without_a_port_is_found_by_one_of_the_services() {
        let addresses = vec!["10.96.0.1".parse().expect("an address")];
        let ports = ["80:8080/tcp", "8001-8003/tcp"].map(|text| text.parse().expect("ports"));
        let frontend = Frontend { addresses, ports: ports.into(), ..Frontend::default() };
        let mut spec = ServiceSpec::new("web", vec![frontend], Origin::Cli);
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.2:8080", "10.0.0.3:9000"] {
            let backend = make_backend("web", address, None, None, false, Origin::Cli).expect("a backend");
            spec.add(backend).expect("room for it");
        }
        let called = |name: &str| declared(&spec, name.into());
        for (text, name) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:8080", "10.0.0.1"),
            ("10.0.0.1:8002", "10.0.0.1"),
            ("10.0.0.2:8080", "10.0.0.2:8080"),
            ("10.0.0.2:8001", "10.0.0.2"),
            ("10.0.0.3:8080", "10.0.0.3:8080"),
            ("10.0.0.9:8080", "10.0.0.9:8080"),
        ] {
            assert_eq!(called(text).as_deref(), Ok(name), "{text}");
        }
        let refused = called("10.0.0.1:80").expect_err("80 leads to 8080");
        let words =
            "no backend 10.0.0.1:80; it has 10.0.0.1, to whose ports 8080/tcp, 8001-8003/tcp it leads";
        assert!(refused.contains(words), "{refused}");
    }
}
