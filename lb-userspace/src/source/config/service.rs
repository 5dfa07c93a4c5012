//! `[[service]]`, as written and as understood.

use std::time::Duration;

use serde::Deserialize;

use super::read::{duration, within};
use crate::{
    model::{Fate, Fates, HealthSpec, ModelError, Probe, ServiceSpec, TimeoutSpec, service::make_backend},
    source::decl::{AffinityDecl, ForwardDecl, FrontendDecl, ServiceDecl},
};
use lb_common::expiry::Timeouts;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawService {
    name: String,
    vip: Option<String>,
    #[serde(default)]
    vips: Vec<String>,
    #[serde(default)]
    vip_except: Vec<String>,
    #[serde(default)]
    source_ranges: Vec<String>,
    ports: Vec<String>,
    scope: Option<String>,
    forward: Option<ForwardDecl>,
    stray: Option<String>,
    algorithm: Option<String>,
    affinity: Option<AffinityDecl>,
    timeouts: Option<RawTimeouts>,
    health: Option<RawHealth>,
    slow_start: Option<String>,
    on_removal: Option<String>,
    on_unhealthy: Option<String>,
    on_deadline: Option<String>,
    #[serde(default)]
    frontend: Vec<FrontendDecl>,
    #[serde(default)]
    backend: Vec<RawBackend>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBackend {
    address: String,
    weight: Option<i64>,
    max_connections: Option<i64>,
    #[serde(default)]
    local: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawTimeouts {
    idle: Option<String>,
    client_request: Option<String>,
    backend_response: Option<String>,
    max_age: Option<String>,
    half_open: Option<String>,
    half_closed: Option<String>,
    udp: Option<String>,
}

/// Most checks in a row that it may take to change a backend's health.
const MOST_IN_A_ROW: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHealth {
    #[serde(rename = "type")]
    kind: String,
    interval: Option<String>,
    timeout: Option<String>,
    rise: Option<u32>,
    fall: Option<u32>,
    path: Option<String>,
    host: Option<String>,
    expect: Option<u16>,
    service: Option<String>,
    passive: Option<bool>,
    panic: Option<u8>,
}

impl RawTimeouts {
    fn into_spec(self) -> Result<TimeoutSpec, ModelError> {
        let time = |what, text: Option<String>| text.map(|t| duration(what, &t)).transpose();
        let response = self.backend_response.map(|t| {
            let longest = Duration::from_millis(Timeouts::MAX_RESPONSE_MS);
            within("timeouts.backend_response", &t, longest, "from 1s to 30min")
        });
        Ok(TimeoutSpec {
            idle: time("timeouts.idle", self.idle)?,
            client_request: time("timeouts.client_request", self.client_request)?,
            backend_response: response.transpose()?,
            max_age: time("timeouts.max_age", self.max_age)?,
            half_open: time("timeouts.half_open", self.half_open)?,
            half_closed: time("timeouts.half_closed", self.half_closed)?,
            udp: time("timeouts.udp", self.udp)?,
        })
    }
}

impl RawHealth {
    /// `None`: no checks.
    fn into_spec(self) -> Result<Option<HealthSpec>, ModelError> {
        let path = self.path.clone().unwrap_or_else(|| "/".into());
        let (host, expect) = (self.host.clone(), self.expect.unwrap_or(200));
        let probe = match self.kind.as_str() {
            "tcp" => Probe::Tcp,
            "http" => Probe::Http { tls: false, path, host, expect },
            "https" => Probe::Http { tls: true, path, host, expect },
            "grpc" => Probe::Grpc { service: self.service.clone().unwrap_or_default() },
            "none" => return Ok(None),
            _ => {
                let known = "tcp, http, https, grpc or none";
                return Err(ModelError::NotKnown { what: "health.type", text: self.kind, known });
            }
        };
        let (rise, fall) = (self.rise.unwrap_or(2), self.fall.unwrap_or(3));
        let web = matches!(probe, Probe::Http { .. });
        let bad_path =
            self.path.as_deref().is_some_and(|p| !p.starts_with('/') || p.contains(char::is_whitespace));
        let bad_status = self.expect.is_some_and(|status| !(100..600).contains(&status));
        let not_web = !web && (self.path.is_some() || self.expect.is_some() || self.host.is_some());
        let not_grpc = self.service.is_some() && !matches!(probe, Probe::Grpc { .. });
        let panic = self.panic.unwrap_or(0);
        let row = 1..=MOST_IN_A_ROW;
        if !row.contains(&rise)
            || !row.contains(&fall)
            || panic > 100
            || bad_path
            || bad_status
            || not_web
            || not_grpc
        {
            return Err(ModelError::NotKnown {
                what: "health setting of type",
                text: self.kind,
                known: "rise and fall from 1 to 1000; panic from 0 to 100 (%); path (/...), host and expect (100 to 599) with http and https, service \
                        with grpc only",
            });
        }
        let time = |what, text: Option<String>, default| text.map_or(Ok(default), |t| duration(what, &t));
        Ok(Some(HealthSpec {
            probe,
            interval: time("health.interval", self.interval, Duration::from_secs(2))?,
            timeout: time("health.timeout", self.timeout, Duration::from_secs(1))?,
            rise,
            fall,
            passive: self.passive.unwrap_or(true),
            panic,
        }))
    }
}

impl RawService {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn into_spec(self) -> Result<ServiceSpec, ModelError> {
        let fate = |what, text: Option<&str>| text.map_or(Ok(Fate::Keep), |text| Fate::parse(what, text));
        let fates = Fates {
            removal: fate("on_removal", self.on_removal.as_deref())?,
            unhealthy: fate("on_unhealthy", self.on_unhealthy.as_deref())?,
            deadline: fate("on_deadline", self.on_deadline.as_deref())?,
        };
        let decl = ServiceDecl {
            vip: self.vip,
            vips: self.vips,
            vip_except: self.vip_except,
            source_ranges: self.source_ranges,
            ports: self.ports,
            scope: self.scope,
            forward: self.forward,
            stray: self.stray,
            algorithm: self.algorithm,
            affinity: self.affinity,
            frontends: self.frontend,
        };
        let mut spec = ServiceSpec {
            timeouts: self.timeouts.unwrap_or_default().into_spec()?,
            health: self.health.map(RawHealth::into_spec).transpose()?.flatten(),
            slow_start: self.slow_start.as_deref().map(|t| duration("slow_start", t)).transpose()?,
            fates,
            ..decl.spec(&self.name, true)?
        };
        for b in self.backend {
            spec.add(make_backend(&spec.name, &b.address, b.weight, b.max_connections, b.local, true)?)?;
        }
        spec.validate()?;
        Ok(spec)
    }
}
