//! How backends are checked, as written.

use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::ServerName;

use super::{
    number,
    time::{Time, optional},
};
use crate::model::{HealthSpec, ModelError, Probe};

/// Most checks in a row that it may take to change a backend's health.
const MOST_IN_A_ROW: i64 = 1_000;

/// How backends are checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthDecl {
    /// `tcp`, `http`, `https`, `grpc` or `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// From one check to the next; default `2s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
    /// How long an answer may take; default `1s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// Good checks in a row that bring a backend back; default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<i64>,
    /// Bad checks in a row that take it out; default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<i64>,
    /// HTTP: path; default `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// HTTP: the host asked for; default: the backend's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// HTTP: the status that it must answer with; default 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<i64>,
    /// gRPC: the service asked about; default: the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Do refused and unanswered connections of clients take a backend out as well? Default: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// If less than so many of a hundred backends are healthy, all are used; default 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic: Option<i64>,
}

impl HealthDecl {
    /// As a service has it; `None`: no checks.
    ///
    /// # Errors
    /// Something of it is out of range, or of another type.
    pub fn spec(&self) -> Result<Option<HealthSpec>, ModelError> {
        let row = 1..=MOST_IN_A_ROW;
        let rise = number("health.rise", self.rise, row.clone(), "1 to 1000")?.unwrap_or(2);
        let fall = number("health.fall", self.fall, row, "1 to 1000")?.unwrap_or(3);
        let panic = number("health.panic", self.panic, 0..=100, "0 to 100 (%)")?.unwrap_or(0);
        let (interval, timeout) =
            (optional(&self.interval, "health.interval")?, optional(&self.timeout, "health.timeout")?);
        let probe = match self.kind.as_str() {
            "none" => None,
            "tcp" => Some(Probe::Tcp),
            "http" => Some(self.http(false)?),
            "https" => Some(self.http(true)?),
            "grpc" => Some(Probe::Grpc { service: self.service.clone().unwrap_or_default() }),
            _ => {
                let known = "tcp, http, https, grpc or none";
                return Err(ModelError::NotKnown { what: "health.type", text: self.kind.clone(), known });
            }
        };
        self.only_of_its_type()?;
        let second = Duration::from_secs(1);
        Ok(probe.map(|probe| HealthSpec {
            probe,
            interval: interval.unwrap_or(2 * second),
            timeout: timeout.unwrap_or(second),
            rise,
            fall,
            passive: self.passive.unwrap_or(true),
            panic,
        }))
    }

    fn http(&self, tls: bool) -> Result<Probe, ModelError> {
        let path = self.path.clone().unwrap_or_else(|| "/".into());
        if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
            let known = "a path like /healthz, without spaces and other characters that URLs don't have";
            return Err(ModelError::NotKnown { what: "health.path", text: path, known });
        }
        let named =
            |host: &str| host.parse::<Authority>().is_ok() && (!tls || ServerName::try_from(host).is_ok());
        if let Some(host) = self.host.as_deref().filter(|host| !named(host)) {
            let known = "a name like app.example; a port may follow, but not with https";
            return Err(ModelError::NotKnown { what: "health.host", text: host.into(), known });
        }
        let expect = number("health.expect", self.expect, 100..=599, "a status from 100 to 599")?;
        Ok(Probe::Http { tls, path, host: self.host.clone(), expect: expect.unwrap_or(200) })
    }

    /// What only another type has isn't there.
    fn only_of_its_type(&self) -> Result<(), ModelError> {
        let web = matches!(self.kind.as_str(), "http" | "https");
        let known = "path, host and expect with http and https, service with grpc only";
        let odd = [
            ("health.path", !web && self.path.is_some()),
            ("health.host", !web && self.host.is_some()),
            ("health.expect", !web && self.expect.is_some()),
            ("health.service", self.kind != "grpc" && self.service.is_some()),
        ];
        match odd.into_iter().find(|(_, odd)| *odd) {
            Some((what, _)) => Err(ModelError::NotOfType { what, kind: self.kind.clone(), known }),
            None => Ok(()),
        }
    }
}

/// With all that it has.
impl From<&HealthSpec> for HealthDecl {
    fn from(spec: &HealthSpec) -> Self {
        let HealthSpec { probe, interval, timeout, rise, fall, passive, panic } = spec;
        let decl = Self {
            kind: "tcp".into(),
            interval: Some((*interval).into()),
            timeout: Some((*timeout).into()),
            rise: Some((*rise).into()),
            fall: Some((*fall).into()),
            passive: Some(*passive),
            panic: Some((*panic).into()),
            ..Self::default()
        };
        match probe {
            Probe::Tcp => decl,
            Probe::Http { tls, path, host, expect } => Self {
                kind: if *tls { "https" } else { "http" }.into(),
                path: Some(path.clone()),
                host: host.clone(),
                expect: Some((*expect).into()),
                ..decl
            },
            Probe::Grpc { service } => {
                let service = (!service.is_empty()).then(|| service.clone());
                Self { kind: "grpc".into(), service, ..decl }
            }
        }
    }
}
